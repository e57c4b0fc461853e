"""An entry of a benchmark: a file or its content becomes a search with all files inside."""

from pathlib import Path
from typing import Any

import pytest

from dmlray.distributions import Choice, Float
from dmlray.errors import ConfigError
from dmlray.plans.benchmark_entries import MethodEntry, read_entry
from dmlray.plans.config_sources import nest, read_file, read_mapping
from dmlray.plans.search import read_search
from dmlray.plans.search_space import overlaid_ranges

EXPERIMENT = "experiments/proxy_anchor_demo.yaml"
SEARCH = "searches/proxy_anchor_demo.yaml"


def entry(content: Any) -> MethodEntry:
    return read_entry(read_mapping({"methods": {"it": content}}, "file"), "it")


def content_of(path: str) -> dict[str, Any]:
    return nest(read_file(Path(path)).values)


@pytest.mark.parametrize(
    "written", [EXPERIMENT, {"experiment": EXPERIMENT}, content_of(EXPERIMENT)], ids=type
)
def test_an_experiment_is_a_search_around_it(written: Any) -> None:
    found = entry(written)
    assert found.search() == {"experiment": content_of(EXPERIMENT)}
    assert found.members == 1


def test_a_search_file_brings_its_experiment_along() -> None:
    found = entry(SEARCH).search()
    assert isinstance(found["experiment"], dict)
    ours, file = read_search(found), read_search(Path(SEARCH))
    assert (ours.experiment, ours.ranges) == (file.experiment, file.ranges)


def test_keys_beside_a_search_file_stand_above_its_own() -> None:
    """A key replaces that of the file; other keys of its group stay."""
    file = read_search(Path(SEARCH))
    dims = {"choices": [64, 128]}
    found = entry(
        {
            "experiment": SEARCH,
            "space": {"method.margin": 0.2, "method.dim": dims, "optimizer": {"lr": {"low": 1e-4,
                      "high": 1e-3}}},
            "set": {"protocol.split_seed": 9},
        }
    )  # fmt: skip
    plan = read_search(found.search())
    assert plan.ranges.space == {
        "method.alpha": file.ranges.space["method.alpha"],
        "method.dim": Choice((64, 128)),
        "optimizer.lr": Float(1e-4, 1e-3),  # no longer logarithmic
    }
    config: Any = plan.experiment.method.config
    assert config.margin == 0.2
    protocol = plan.experiment.protocol
    assert (protocol.folds, protocol.split_seed) == (2, 9)  # of the file, and of the entry


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"a.b": 1, "a.c": 2}, {"a.b": 3}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": {"low": 1, "high": 2}}}, {"a.b": 3}, {"a": {"b": 3}}),
        ({"a.b": 3}, {"a.b": {"low": 1, "high": 2}}, {"a": {"b": {"low": 1, "high": 2}}}),
        ({"a.b": {"choices": [1]}}, {"a.b.low": 1}, {"a": {"b": {"low": 1}}}),
        ({"a.b": {"low": 1}, "a.bc": 2}, {"a.b": 1}, {"a": {"b": 1, "bc": 2}}),
        ({"a": {"b": {"low": 1, "when": {"c.d": 2}}}}, {"c.d": 3},
         {"a": {"b": {"low": 1, "when": {"c": {"d": 2}}}}, "c": {"d": 3}}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)  # fmt: skip
def test_a_space_above_another_replaces_ranges_one_by_one(
    below: dict[str, Any], above: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert overlaid_ranges(below, above) == expected


def test_an_entry_reads_back_as_itself() -> None:
    found = entry({"experiment": EXPERIMENT, "members": 8, "set": {"seed": 3}})
    assert found.members == 8
    assert entry(found.document()) == found


@pytest.mark.parametrize("members", [0, 1_000_001, 1.5, True, "two", None])
def test_members_are_a_whole_number(members: Any) -> None:
    with pytest.raises(ConfigError, match=r"methods\.it.*members: .* Allowed: a whole number in"):
        entry({"experiment": EXPERIMENT, "members": members})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "is empty. Allowed: a file, an experiment or a search"),
        (None, "None is not allowed. Allowed: a file, an experiment or a search"),
        (7, "7 is not allowed"),
        ([EXPERIMENT], "is not allowed"),
        ("experiments/proxy_anchr_demo.yaml", "no such file. Did you mean"),
        ({"experiment": EXPERIMENT, "member": 3}, "member: unknown key. Did you mean members?"),
        ({"experiment": EXPERIMENT, "trials": 3}, "trials: unknown key. Allowed: experiment"),
        ({"experiment": "no.yaml", "space": {}}, "no.yaml: no such file"),
        ({"experiment": SEARCH, "set": "seed=1"}, "set: 'seed=1' is not allowed. Allowed: a group"),
        ({"experiment": SEARCH, "space": [1]}, "space: [1] is not allowed. Allowed: a group of"),
    ],
)
def test_what_is_no_entry_is_one_sentence(content: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        entry(content)
    assert len(refused.value.problems) == 1
    assert sentence in str(refused.value)
