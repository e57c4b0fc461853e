import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmlray import methods
from dmlray.errors import ConfigError
from dmlray.plans.config_sources import ConfigSource, flatten
from dmlray.plans.experiment import Experiment
from dmlray.plans.plan_files import shipped
from dmlray.plans.resolve import override, read_experiment, resolve, write_experiment

DEMO = Path("experiments/proxy_anchor_demo.yaml")


def refused(text: str, tmp_path: Path, overrides: tuple[str, ...] = ()) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_experiment(path, overrides)
    return str(caught.value)


def test_all_problems_of_a_file_are_told_at_once_with_line_spelling_and_range(
    tmp_path: Path,
) -> None:
    text = "method:\n  name: proxy_anchor\n  alpah: 3\noptimizer:\n  lr: -0.1\n"
    origins = refused(text, tmp_path).replace(str(tmp_path), "")
    assert origins == (
        "/bad.yaml: 2 problems\n"
        "  line 3  method.alpah: unknown key. Did you mean alpha?\n"
        "  line 5  optimizer.lr: -0.1 is not allowed. Allowed: a number in (0, 1]."
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\n", "method.name: is missing. Allowed: dcml, distil, dreml"),
        ("method: {name: dremel}\n", "unknown method 'dremel'. Did you mean dreml?"),
        ("method: {name: dreml}\nseed: many\n", "seed: 'many' is not allowed. Allowed: a whole"),
        ("method: {name: dreml}\nbudget: 3\n", "budget: 3 is not allowed. Allowed: a group"),
        ("method: {name: dreml}\nbudgets: {epochs: 3}\n", "budgets: unknown key. Did you mean"),
        ("method: dreml\n", "method.name: is missing"),
        (
            "method: {name: dreml}\nprotocol: {selection: luck}\n",
            "Allowed: one of validation, last, best_on_test",
        ),
        (
            "method: {name: dreml}\ndata: {batch_size: 10, images_per_class: 4}\n",
            "batch_size 10 is not divisible by images_per_class 4",
        ),
        ("method: {name: dreml}\nprotocol: {fold: 4}\n", "fold 4 does not exist. Allowed: 0 to 3"),
        ("method: {name: dreml}\noptimizer: {lr: .nan}\n", "optimizer.lr: nan is not allowed"),
    ],
)
def test_nonsense_is_told_in_one_sentence(text: str, complaint: str, tmp_path: Path) -> None:
    assert complaint in refused(text, tmp_path)


def test_a_problem_of_the_command_line_says_so(tmp_path: Path) -> None:
    origins = refused("method: {name: dreml}\n", tmp_path, ("optimizer.lr=7",))
    assert "command line  optimizer.lr: 7 is not allowed" in origins


def test_the_last_voice_wins_and_every_value_knows_who_said_it() -> None:
    resolved = read_experiment(DEMO, ["optimizer.lr=1e-3"])
    assert resolved.experiment.optimizer.lr == 1e-3
    assert resolved.origins["optimizer.lr"] == "command line"
    assert resolved.origins["method.dim"].startswith("line ")
    assert resolved.origins["method.margin"] == "default"


def test_published_settings_speak_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("method: {name: proxy_anchor}\ndata: {name: cub}\n")
    resolved = read_experiment(path)
    published = methods.load("proxy_anchor").PUBLISHED["cub"].settings
    assert published["data.batch_size"] == resolved.experiment.data.batch_size
    assert resolved.origins["data.batch_size"] == "published"


def test_an_experiment_survives_its_own_file_and_a_pickle(tmp_path: Path) -> None:
    experiment = read_experiment(DEMO).experiment
    write_experiment(tmp_path / "again.yaml", experiment, ["why"])
    assert read_experiment(tmp_path / "again.yaml").experiment == experiment
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert (tmp_path / "again.yaml").read_text().startswith("# why\n")


def test_override_is_checked_like_a_file() -> None:
    experiment = read_experiment(DEMO).experiment
    config: Any = override(experiment, "trial", {"method.alpha": 9}).method.config
    assert config.alpha == 9
    with pytest.raises(ConfigError, match=r"trial  method.alpha: -1 is not allowed"):
        override(experiment, "trial", {"method.alpha": -1})


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("experiments")])
def test_every_shipped_experiment_is_legal(name: str) -> None:
    read_experiment(Path(name))


@pytest.mark.parametrize("method", methods.names())
def test_every_published_setting_is_legal(method: str) -> None:
    for dataset in methods.load(method).PUBLISHED:
        path = yaml.safe_dump({"method": {"name": method}, "data": {"name": dataset}})
        from dmlray.plans.config_sources import ConfigSource, flatten
        from dmlray.plans.resolve import resolve

        resolve("published", [ConfigSource("test", flatten(yaml.safe_load(path)))])


def test_a_published_score_is_shown_with_what_it_was_not_won_with() -> None:
    faithful = read_experiment(Path("experiments/dcml_cub.yaml"))
    assert faithful.published()
    assert faithful.departures() == []
    changed = read_experiment(Path("experiments/dcml_cub.yaml"), ["method.mode=paper"])
    assert changed.departures() == ["method.mode"]


def test_a_variant_brings_its_own_published_settings() -> None:
    plain = read_experiment(Path("experiments/dreml_cars.yaml")).experiment
    variant = read_experiment(Path("experiments/dreml_cars.yaml"), ["method.recipe=authors2018"])
    assert (plain.optimizer.name, plain.data.transform.rotation) == ("adam", 0)
    learned = variant.experiment
    assert (learned.optimizer.name, learned.optimizer.gamma) == ("sgd", 0.1)
    assert learned.data.transform.rotation == 10
    assert learned.data.transform.mean == plain.data.transform.mean == (0.4853, 0.4965, 0.4295)
    assert learned.budget.epochs == 12
    assert variant.departures() == []


@pytest.mark.parametrize("file", ["experiments/proxy_anchor_cub.yaml", "experiments/drml_cub.yaml"])
@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7, "method.head_lr_factor": 3.0},
        {"optimizer.lr": 0.01, "data": {"name": "folder", "root": "x"}},
        {"data.transform.size": 128, "protocol.selection": "validation"},
    ],
)
def test_an_override_is_what_the_file_reader_makes_of_it(
    file: str, changes: dict[str, Any]
) -> None:
    experiment = read_experiment(Path(file)).experiment
    base = ConfigSource("base", flatten(experiment.document()))
    read = resolve("test", [base, ConfigSource("test", changes)]).experiment
    assert override(experiment, "test", changes) == read


def test_an_override_validates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    validated: list[str] = []
    validate = Experiment.model_validate

    def counted(content: Any) -> Experiment:
        validated.append("experiment")
        return validate(content)

    monkeypatch.setattr(Experiment, "model_validate", counted)
    assert override(experiment, "trial", {"optimizer.lr": 0.5}).optimizer.lr == 0.5
    assert validated == ["experiment"]
