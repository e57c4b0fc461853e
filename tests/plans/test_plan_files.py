from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.plan_files import find, prefer_experiment, shipped
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import Search, read_plan, read_search

DEMO = "dreml_demo"  # an experiment and a search have this name


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_shipped_files_are_found_from_any_folder_and_a_local_one_wins() -> None:
    name = Path("experiments") / f"{DEMO}.yaml"
    assert find(name).is_absolute()
    assert all(find(Path(file)).is_file() for file in shipped())
    name.parent.mkdir()
    name.write_text("seed: 1\n")
    assert find(name) == name == find(Path(DEMO), ["experiments"])


def test_a_bare_name_is_an_experiment_or_a_search_as_the_command_asks() -> None:
    named, file = Path(DEMO), f"{DEMO}.yaml"
    assert read_experiment(named) == read_experiment(Path("experiments", file))
    assert read_search(named) == read_search(Path("searches", file))
    with pytest.raises(ConfigError, match=f"Allowed: experiments/{file} or searches/{file}"):
        read_plan(named)
    assert isinstance(read_plan("margin_cub"), Search)  # no experiment has this name
    Path("experiments").mkdir()
    Path("experiments/mine.yaml").write_text("method: {name: dreml}\n")
    assert not isinstance(read_plan("mine"), Search)
    assert read_experiment(Path("mine")).experiment.seed == 0


def test_a_file_of_the_bare_name_wins_and_a_folder_does_not() -> None:
    Path(DEMO).mkdir()
    assert find(Path(DEMO), ["experiments"]).parent.name == "experiments"
    Path(DEMO).rmdir()
    Path(DEMO).write_text("seed: 1\n")
    assert find(Path(DEMO), ["experiments"]) == Path(DEMO)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("photos.yaml", "no such file. Allowed: a path, or a name such as "),
        ("experiments/dremel_demo.yaml", "no such file. Did you mean experiments/dreml_demo.yaml"),
        ("dremel_demo", "no such file or experiment of dmlray. Did you mean dreml_demo or d"),
        ("zzz", "no such file or experiment of dmlray. Allowed: dcml_cub, dcml_demo, "),
        ("margin_cub", "no such file or experiment of dmlray. Did you mean "),  # a search alone
        ("elsewhere/dreml_demo", "no such file. Did you mean experiments/dreml_demo.yaml"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_experiment(Path(name))
    assert str(refused.value).startswith(f"{name}: {complaint}")
    assert "\n" not in str(refused.value)


def test_settings_of_a_name_that_is_both_are_those_of_the_experiment() -> None:
    assert prefer_experiment(Path("drml_cub")).parts[-2:] == ("experiments", "drml_cub.yaml")
    assert prefer_experiment(Path("none_such")) == Path("none_such")
    search = Path("searches/drml_cub.yaml")
    assert prefer_experiment(search) == search
