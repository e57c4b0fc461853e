"""What can be wrong with a space is told before anything runs, with its line."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dmlray import methods
from dmlray.distributions import Choice, Float
from dmlray.errors import ConfigError
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import read_search
from dmlray.plans.search_space import Ranges
from dmlray.plans.space_checks import is_measure, refusal, sample_points
from tests.plans.search_files import BASE, SPACE, write

MEASURE = [
    "protocol.folds", "protocol.split", "protocol.split_seed", "protocol.selection",
    "protocol.fold", "protocol.metric", "protocol.recall_at", "protocol.nmi", "protocol.tuned_by",
    "protocol.extra_metrics",
    "data.name", "data.root", "data.split", "data.skip_broken", "data.max_megapixels",
    "seed", "method.name", "method.draw_seed",
]  # fmt: skip


@pytest.mark.parametrize("key", MEASURE)
def test_what_is_measured_cannot_be_searched(key: str, tmp_path: Path) -> None:
    path = write(tmp_path, BASE + f"space:\n  {key}: {{choices: [0, 1]}}\n")
    with pytest.raises(ConfigError, match=f"line 4  space.{key}: trials that differ in it measure"):
        read_search(path)
    with pytest.raises(ConfigError, match=f"space.{key}: trials that differ in it measure"):
        read_search(write(tmp_path, BASE + SPACE), [f"space.{key}.choices=[0, 1]"])
    words = f"space: {{method.alpha: {{low: 8, high: 64, when: {{{key}: 0}}}}}}\n"
    with pytest.raises(ConfigError, match=f"when: ({key} is the same for all|unknown key {key})"):
        read_search(write(tmp_path, BASE + words))


def test_what_a_method_s_own_space_measures_cannot_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"protocol.folds": Choice((2, 4)), "method.alpha": Float(8, 64)}
    monkeypatch.setattr(methods.load("proxy_anchor"), "SPACE", space)
    text = "experiment: experiments/proxy_anchor_demo.yaml\n"
    with pytest.raises(ConfigError, match=r"the method's SPACE  space\.protocol\.folds"):
        read_search(write(tmp_path, text))
    assert read_search(write(tmp_path, text + "space: {protocol.folds: 2}\n"))  # fixed for all


def test_every_point_of_a_space_passes_the_reader_of_plans(tmp_path: Path) -> None:
    """Each value alone is legal; which of them are not together is told with the fewest keys."""
    text = """experiment: experiments/drml_demo.yaml
use_method_space: false
set: {method.dim: 64, method.branches: 4, data.batch_size: 32}
space:
  method.branches: {choices: [4, 8]}
  method.dim: {choices: [64, 36]}
  data.batch_size: {choices: [32, 36]}
  data.images_per_class: {choices: [4, 8]}
  method.margin: {low: 0.0, high: 0.3}
  optimizer.lr: {low: 1.0e-5, high: 1.0e-3, log: true}
"""
    words = ["data.images_per_class=4"]
    with pytest.raises(ConfigError) as refusal:
        read_search(write(tmp_path, text), words)
    origins = str(refusal.value)
    assert "2 problems" in origins
    assert "line 5  space: method.branches = 8, method.dim = 36 cannot go together: " in origins
    assert "data.batch_size = 36, data.images_per_class = 8 cannot go together: " in origins


def test_a_condition_keeps_points_apart_that_do_not_go_together(tmp_path: Path) -> None:
    text = """experiment: experiments/drml_demo.yaml
use_method_space: false
set: {method.dim: 64, method.branches: 4}
space:
  method.branches: {choices: [4, 8]}
  method.dim: {choices: [64, 36]%s}
"""
    with pytest.raises(ConfigError, match="cannot go together"):
        read_search(write(tmp_path, text % ""))
    search = read_search(write(tmp_path, text % ", when: {method.branches: 4}"))
    assert search.size == 3


def test_whole_numbers_between_the_ends_pass_the_reader_too(tmp_path: Path) -> None:
    text = BASE + "set: {data.images_per_class: 2, data.batch_size: 64}\n"
    text += "space: {data.images_per_class: {low: 2, high: 4}}\n"
    with pytest.raises(
        ConfigError, match=r"space: data\.images_per_class = 3 is not allowed: data"
    ):
        read_search(write(tmp_path, text))


@pytest.mark.parametrize("metric", ["map_at_r", "[map_at_r, seconds]"])
def test_cmaes_seeks_one_metric(metric: str, tmp_path: Path) -> None:
    path = write(tmp_path, BASE + SPACE + f"sampler: cmaes\nmetric: {metric}\n")
    if metric == "map_at_r":
        assert read_search(path)
        return
    with pytest.raises(ConfigError, match="sampler: cmaes seeks one metric"):
        read_search(path)


@pytest.mark.parametrize("key", MEASURE)
def test_what_is_measured_is_a_measure(key: str) -> None:
    assert is_measure(key)


@pytest.mark.parametrize(
    "key", ["method.alpha", "data.batch_size", "optimizer.lr", "data.root_size", "method.seeds"]
)
def test_other_keys_are_none(key: str) -> None:
    assert not is_measure(key)


def test_all_points_of_a_small_space_are_tried() -> None:
    space: Any = {"a": Choice((1, 2, 3)), "b": Choice(("x", "y"))}
    found = list(sample_points(Ranges(space, {"b": {"a": (1,)}}), {"a": 1, "b": "x"}))
    assert Counter(map(str, found)) == Counter(
        map(str, [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2}, {"a": 3}])
    )


def test_a_large_space_is_tried_at_the_same_corners_and_inner_points_each_time() -> None:
    ranges = Ranges({"a": Float(0, 1), "b": Float(1, 9)})
    found = list(sample_points(ranges, {"a": 0, "b": 1}))
    assert found == list(sample_points(ranges, {"a": 0, "b": 1}))
    assert len(found) == 128
    corners = [point for point in found if point["a"] in (0, 1) and point["b"] in (1, 9)]
    assert {(point["a"], point["b"]) for point in corners} == {(0, 1), (0, 9), (1, 1), (1, 9)}
    inner = [point for point in found if point not in corners]
    assert len(inner) == 64
    assert all(0 < point["a"] < 1 < point["b"] < 9 for point in inner)


def test_a_refusal_is_the_sentence_without_the_place() -> None:
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    assert refusal(plan, {"method.alpha": 16.0, "data.batch_size": 32}) is None
    found = refusal(plan, {"method.margin": 7})
    assert found is not None
    assert found.startswith("method.margin: 7 is not allowed. Allowed: ")
