from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.knobs import Choice, Float, Int
from dmlray.plans.search import read_search
from dmlray.plans.voices import shipped

BASE = "experiment: experiments/proxy_anchor_demo.yaml\nuse_method_space: false\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return path


def test_a_space_is_data_and_scalars_are_fixed(tmp_path: Path) -> None:
    text = """space:
  method.alpha: {low: 8, high: 64, log: true}
  budget.epochs: {low: 1, high: 9, int: true}
  data.batch_size: {choices: [32, 64]}
  method.margin: 0.2
"""
    search = read_search(write(tmp_path, BASE + text))
    assert search.ranges.space == {
        "method.alpha": Float(8, 64, log=True),
        "budget.epochs": Int(1, 9),
        "data.batch_size": Choice((32, 64)),
    }
    assert search.experiment.method.config.margin == 0.2
    assert search.base_point()["method.alpha"] == 32


def test_the_method_s_own_space_is_the_start_unless_refused(tmp_path: Path) -> None:
    inherited = read_search(
        write(tmp_path, "experiment: experiments/proxy_anchor_demo.yaml\nspace: {seed: 1}\n")
    )
    assert "method.alpha" in inherited.ranges.space


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("space: {method.alpha: {low: 9, high: 8}}\n", "low must be at most high"),
        ("space: {method.alpha: {low: 0, high: 64, log: true}}\n", "log range must start above 0"),
        ("space: {method.alpha: {low: 8}}\n", "high missing. Allowed: low and high, or choices"),
        ("space: {data.batch_size: {choices: []}}\n", "a choice needs at least one value"),
        (
            "space: {method.alpah: {low: 8, high: 64}}\n",
            r"line 3  space.method.alpah: unknown key. Did you mean alpha\\?",
        ),
        (
            "space: {method.margin: {low: 0, high: 7}}\n",
            r"line 3  space.method.margin: 7.0 is not allowed. Allowed: a number in \[0",
        ),
        ("space: {method.alpha: {low: 40, high: 64}}\n", "own value 32.0 lies outside"),
        ("seed: 1\n", "space: is empty"),
        ("space: {method.alpha: {low: 8, high: 64}}\ntrails: 3\n", "Did you mean trials?"),
        ("space: {method.alpha: {low: 8, high: 64}}\ntrials: 0\n", "trials: 0 is not allowed"),
    ],
)
def test_nonsense_is_told_in_one_sentence(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_search(write(tmp_path, BASE + text))


def test_a_search_without_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="experiment: is missing"):
        read_search(write(tmp_path, "trials: 3\n"))


def test_overrides_reach_the_search_and_its_experiment(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "space: {method.alpha: {low: 8, high: 64}}\n")
    search = read_search(path, ["trials=3", "budget.epochs=2"])
    assert (search.settings.trials, search.experiment.budget.epochs) == (3, 2)


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("searches")])
def test_a_shipped_search_survives_its_own_file(name: str, tmp_path: Path) -> None:
    search = read_search(Path(name))
    search.write(tmp_path / "again.yaml")
    again = read_search(tmp_path / "again.yaml")
    assert again.identity() == search.identity()
    assert (again.ranges, again.experiment) == (search.ranges, search.experiment)
