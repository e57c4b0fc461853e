import json
from pathlib import Path
from typing import Any

import pytest

from dmlray import methods
from dmlray.distributions import Choice, Float, Int, Space
from dmlray.errors import ConfigError
from dmlray.plans.plan_files import shipped
from dmlray.plans.search import read_search
from dmlray.plans.search_space import Ranges
from dmlray.plans.space_points import combinations
from tests.plans.search_files import BASE, SPACE, write

DATA = ("cub", "cars", "sop", "inshop", "demo")


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
    config: Any = search.experiment.method.config
    assert config.margin == 0.2
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


def test_a_group_of_the_command_line_takes_the_place_of_the_files(tmp_path: Path) -> None:
    text = (
        "set: {budget.epochs: 7, data.batch_size: 32}\nspace: {method.alpha: {low: 8, high: 64}}\n"
    )
    path, plain = (
        write(tmp_path, BASE + text),
        read_search(write(tmp_path, BASE + SPACE)).experiment,
    )
    path = write(tmp_path, BASE + text)
    one = read_search(path, ["set.data.batch_size=16", "budget.epochs=3"]).experiment
    assert (one.budget.epochs, one.data.batch_size) == (3, 16)
    for word in ("set={seed: 4}", "set={}"):
        whole = read_search(path, [word]).experiment
        assert (whole.budget.epochs, whole.data.batch_size) == (
            plain.budget.epochs, plain.data.batch_size
        )  # fmt: skip


@pytest.mark.parametrize(
    "words", [["protocol.metric=recall_at_1"], ["set.protocol.metric=seconds"]]
)
def test_a_search_that_could_not_be_resumed_is_refused(words: list[str], tmp_path: Path) -> None:
    """Its own file would name a metric twice."""
    text = BASE + SPACE + "metric: [map_at_r, recall_at_1, seconds]\n"
    with pytest.raises(ConfigError, match=r"metric: |seconds"):
        read_search(write(tmp_path, text), words)
    other = read_search(write(tmp_path, text), ["protocol.metric=r_precision"])
    other.write(tmp_path / "again.yaml")
    again = read_search(tmp_path / "again.yaml")
    assert again.metrics == other.metrics == ("r_precision", "recall_at_1", "seconds")


def test_a_study_may_go_on_with_other_loggers(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "space: {method.alpha: {low: 8, high: 64}}\n")
    first, other = (read_search(path, [f"experiment.loggers={names}"]) for names in ("[]", "[a]"))
    assert first.identity() == other.identity()


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
    config: Any = search.point({"method.loss_arguments.alpha": 3.0}).method.config
    assert config.loss_arguments == {"alpha": 3.0}


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
    space: Space = {"a": Choice((1, 2, 3)), "b": Int(0, 4, step=2), "c": Float(0.1, 0.3, step=0.1)}
    assert combinations(Ranges(space), {}) == 27
    assert combinations(Ranges(space, {"c": {"a": (1, 2)}}), {}) == 2 * 9 + 3
    assert combinations(Ranges(space, {"c": {"z": (1,)}}), {"z": 0}) == 9


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SPACE + "sampler: grid\n", "line 3  space.method.alpha: a grid needs steps"),
        (
            "space: {method.alpha: {low: 8, high: 64, step: 3}}\n",
            "high must be low plus a multiple of step",
        ),
        ("space: {method.alpha: {low: 8, high: 64, step: 7}}\n", "own value 32.0 lies outside"),
        ("space: {method.alpha: {low: eight, high: 64}}\n", "method.alpha.low: 'eight' is not"),
        ("space: {method.alpha: {low: 8, hihg: 64}}\n", "hihg: unknown key. Did you mean high?"),
        ("space: {method.alpha: {choices: [32, 32]}}\n", "choices repeat a value"),
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
        (
            SPACE + "metric: mapr\n",
            "line 4  metric: 'mapr' is no score. Allowed first: recall_at_K",
        ),
        (SPACE + "metric: nmi\n", "'nmi' is no score. Allowed first: recall_at_K, r_precision"),
        (SPACE + "metric: [seconds, map_at_r]\n", "'seconds' is no score"),
        (SPACE + "metric: [map_at_r, speed]\n", "unknown 'speed'. Allowed: recall_at_K"),
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


@pytest.mark.parametrize(
    ("base", "key", "range_"),
    [
        ("proxy_anchor", "method.dim", Int(4, 256)),
        ("proxy_anchor", "budget.epochs", Int(1, 64)),
        ("proxy_anchor", "data.images_per_class", Int(1, 2)),  # or null
        ("proxy_anchor", "data.transform.size", Int(8, 256)),
        ("proxy_anchor", "method.alpha", Float(8, 64)),
        ("dcml", "optimizer.warmup_steps", Int(0, 64)),
        ("pml", "method.loss_arguments.alpha", Float(1, 64)),  # a key that has no type
    ],
)
def test_a_range_has_the_type_of_its_setting(
    base: str, key: str, range_: Int | Float, tmp_path: Path
) -> None:
    words = (
        f"space: {{{key}: {{low: {range_.low}, high: {range_.high}}}}}\nuse_method_space: false\n"
    )
    text = f"experiment: experiments/{base}_demo.yaml\n{words}"
    fixed = "set: {method.loss_arguments: {alpha: 2}}\n" if base == "pml" else ""
    fixed = "set: {data.images_per_class: 1}\n" if "images" in key else fixed
    assert read_search(write(tmp_path, text + fixed)).ranges.space == {key: range_}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("method.dim: {low: 4, high: 128.5}", "whole numbers have whole low, high and step"),
        ("method.dim: {low: 4, high: 128, step: 0.5}", "whole numbers have whole low"),
        ("method.dim: {low: 4, high: 128, int: false}", "is a whole number. Allowed: int: true"),
        ("budget.compile: {low: 0, high: 1}", "is true or false and has no range"),
        ("budget.compile: {low: 0, high: 1, int: true}", "is true or false and has no range"),
        (
            "optimizer.name: {low: 0, high: 1}",
            "optimizer.name: 0.0 is not allowed. Allowed: one of",
        ),
        ("optimizer.milestones: {low: 0, high: 1}", "optimizer.milestones: 0.0 is not allowed"),
        ("optimizer.milestones: {choices: [[0.5], [0.7]]}", "choices: [0.5] is not allowed"),
        ("optimizer: {choices: [1, 2]}", "optimizer: 1 is not allowed. Allowed: a group of keys"),
        ("method.alpha: {low: 8, high: 64, when: {method.dim: [[1]]}}", "when: "),
        ("method.dim: {choices: [128, many]}", "method.dim: 'many' is not allowed"),
        ("optimizer.name: {choices: [adamw, adan]}", "optimizer.name: 'adan' is not allowed"),
    ],
)
def test_what_a_setting_cannot_be_is_no_range_of_it(
    spec: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_search(write(tmp_path, BASE + f"space:\n  {spec}\n"))
    assert complaint in str(refusal.value)
    assert "line 4" in str(refusal.value)


def test_a_search_has_no_more_trials_than_points(tmp_path: Path) -> None:
    text = BASE + "space: {method.dim: {choices: [64, 128]}}\ntrials: 4\n"
    assert (
        read_search(write(tmp_path, text)).size,
        read_search(tmp_path / "search.yaml").trials,
    ) == (
        2,
        2,
    )
    endless = read_search(write(tmp_path, BASE + SPACE))
    assert (endless.size, endless.trials) == (float("inf"), 20)


def test_points_are_counted_without_being_listed() -> None:
    long = Int(1, 10**6)
    space: Space = {"a": long, "b": long, "c": long}
    assert combinations(Ranges(space), {}) == 10**18
    assert combinations(Ranges(space, {"c": {"a": (1, 2), "b": (3,)}}), {}) == (
        2 * 10**6 + (10**12 - 2)
    )
    assert combinations(Ranges({"a": Choice((1, 2)), "x": Float(0, 1)}), {}) == float("inf")
    assert (
        combinations(Ranges({"a": Choice((1, 2)), "x": Float(0, 1)}, {"x": {"a": (3,)}}), {}) == 2
    )


def test_a_second_score_is_among_the_metrics_of_each_trial(tmp_path: Path) -> None:
    text = BASE + SPACE + "metric: [map_at_r, precision_at_3, recall_at_1, seconds]\n"
    search = read_search(write(tmp_path, text), ["protocol.extra_metrics=[ami]"])
    assert search.experiment.protocol.extra_metrics == ("ami", "precision_at_3")
    assert search.modes == ["max", "max", "max", "min"]
    search.write(tmp_path / "again.yaml")
    again = read_search(tmp_path / "again.yaml")
    assert again.experiment == search.experiment
    assert not any("extra_metrics" in key for key in search.identity())
