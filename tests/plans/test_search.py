import json
from pathlib import Path

import pytest

from dmlray import methods
from dmlray.errors import ConfigError
from dmlray.knobs import Choice, Float, Int
from dmlray.plans.search import read_search
from dmlray.plans.space import Ranges
from dmlray.plans.space_checks import combinations
from dmlray.plans.voices import shipped

BASE = "experiment: experiments/proxy_anchor_demo.yaml\nuse_method_space: false\n"
DATA = ("cub", "cars", "sop", "demo")


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


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("searches")])
def test_trial_0_of_a_shipped_search_is_the_published_point(name: str) -> None:
    search = read_search(Path(name))
    method, plan = methods.load(search.experiment.method.name), search.experiment
    point = search.base_point()
    assert search.point(point) == plan
    assert all(search.ranges.space[key].contains(value) for key, value in point.items())
    published = method.PUBLISHED.get(plan.data.name)
    experiment = Path("experiments") / Path(name).name
    if published and experiment.as_posix() not in shipped():
        flat = search.base()
        settings = json.loads(json.dumps(dict(published.settings)))
        assert {key: flat[key] for key in settings} == settings


def test_every_method_has_a_search_for_every_benchmark() -> None:
    wanted = {f"searches/{m}_{d}.yaml" for m in methods.names() for d in DATA}
    assert wanted <= set(shipped())


def test_a_key_is_searched_only_when_another_lets_it(tmp_path: Path) -> None:
    text = """space:
  method.logit_scale: {when: {method.normalise_logits: true}}
  method.normalise_logits: {choices: [false, true]}
  optimizer.lr: {low: 1e-5, high: 1e-3, log: true}
"""
    base = "experiment: experiments/dreml_demo.yaml\n"
    search = read_search(write(tmp_path, base + text))
    assert "method.logit_scale" not in search.base_point()
    asked = search.ranges.walk(search.base(), lambda key, _: key == "method.normalise_logits")
    assert list(asked).index("method.normalise_logits") < list(asked).index("method.logit_scale")
    resting = read_search(write(tmp_path, base + text), ["space.method.normalise_logits=false"])
    assert "method.logit_scale" not in resting.ranges.walk(resting.base(), lambda *_: 1)


def test_arguments_of_a_loss_can_be_searched_once_they_have_a_value(tmp_path: Path) -> None:
    text = "experiment: experiments/pml_demo.yaml\nuse_method_space: false\n"
    text += "space:\n  method.loss_arguments.alpha: {low: 0.1, high: 9}\n"
    with pytest.raises(
        ConfigError, match=r"line 4  space.method.loss_arguments.alpha: has no value"
    ):
        read_search(write(tmp_path, text))
    search = read_search(write(tmp_path, text + "set: {method.loss_arguments: {alpha: 2}}\n"))
    assert search.base_point() == {"method.loss_arguments.alpha": 2}
    assert search.point({"method.loss_arguments.alpha": 3.0}).method.config.loss_arguments == {
        "alpha": 3.0
    }


def test_metrics_folds_and_budgets_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "space: {method.alpha: {low: 8, high: 64}}\nfolds: 3\n")
    search = read_search(path, ["metric=[recall_at_1, seconds]", "time_budget=1.5h"])
    assert search.metrics == ("recall_at_1", "seconds")
    assert search.modes == ["max", "min"]
    assert search.experiment.protocol.folds == 3
    assert search.settings.time_budget == 5400
    search.write(tmp_path / "again.yaml")
    assert read_search(tmp_path / "again.yaml").metrics == search.metrics
    assert read_search(path, ["folds=5"]).experiment.protocol.folds == 5
    assert read_search(path, ["protocol.folds=6"]).experiment.protocol.folds == 6


def test_a_searched_number_of_epochs_is_each_trial_s_own(tmp_path: Path) -> None:
    text = "space: {budget.epochs: {low: 1, high: 9, int: true}}\n"
    search = read_search(write(tmp_path, BASE + text))
    assert (search.epochs({"budget.epochs": 4}), search.most_epochs) == (4, 9)


def test_a_grid_counts_its_combinations_and_what_conditions_leave_out() -> None:
    space = {"a": Choice((1, 2, 3)), "b": Int(0, 4, step=2), "c": Float(0.1, 0.3, step=0.1)}
    assert combinations(Ranges(space), {}) == 27
    assert combinations(Ranges(space, {"c": {"a": (1, 2)}}), {}) == 2 * 9 + 3
    assert combinations(Ranges(space, {"c": {"z": (1,)}}), {"z": 0}) == 9


SPACE = "space: {method.alpha: {low: 8, high: 64}}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SPACE + "sampler: grid\n", "line 3  space.method.alpha: a grid needs steps"),
        (
            "space: {method.alpha: {low: 8, high: 64, step: 3}}\n",
            "high must be low and whole steps",
        ),
        ("space: {method.alpha: {low: 8, high: 64, step: 7}}\n", "own value 32.0 lies outside"),
        ("space: {method.alpha: {low: eight, high: 64}}\n", "method.alpha.low: 'eight' is not"),
        ("space: {method.alpha: {low: 8, hihg: 64}}\n", "hihg: unknown key. Did you mean high?"),
        ("space: {method.alpha: {choices: [32, 32]}}\n", "choices say a value twice"),
        ("space: {method.alpha: {choices: [32], low: 3}}\n", "choices stands alone"),
        ("space: {method.dim: {low: 1.5, high: 9, int: true}}\n", "whole numbers have whole low"),
        ("space: {method.alpha: {low: 8, high: 64, when: 3}}\n", "when: 3 is not allowed"),
        (
            "space: {method.alpha: {low: 8, high: 64, when: {method.mode: 3}}}\n",
            "when: unknown key method.mode",
        ),
        (
            "space:\n  method.alpha: {low: 8, high: 64, when: {method.margin: 0.1}}\n"
            "  method.margin: {low: 0, high: 0.3, when: {method.alpha: 32}}\n",
            "wait for each other",
        ),
        (
            "space:\n  method.alpha: {low: 8, high: 64, when: {method.dim: 7}}\n"
            "  method.dim: {choices: [8, 128]}\n",
            "when: method.dim is never 7",
        ),
        (SPACE + "metric: mapr\n", "line 4  metric: 'mapr' is no score. Allowed first: map_at_r"),
        (SPACE + "metric: [seconds, map_at_r]\n", "'seconds' is no score"),
        (SPACE + "metric: [map_at_r, speed]\n", "unknown 'speed'. Allowed: map_at_r"),
        (SPACE + "time_budget: soon\n", "time_budget: 'soon' is not allowed"),
        (SPACE + "time_budget: 0h\n", "line 4  time_budget: 0.0 is not allowed"),
        (SPACE + "sampler: bayes\n", "Allowed: one of tpe, gp, cmaes, random, grid"),
        (SPACE + "set: {budget.workers: 2}\n", "budget.workers: a search trains each fold on one"),
    ],
)
def test_nonsense_about_the_walk_is_told_with_its_line(
    text: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_search(write(tmp_path, BASE + text))
    assert complaint in str(refusal.value)
