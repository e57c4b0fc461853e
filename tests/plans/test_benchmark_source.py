"""Sections of a benchmark: what stands above what, and names that become folders."""

import pytest

from dmlray.plans.benchmark_source import check_names, check_sections, joined, unknown_keys
from dmlray.plans.config_sources import ConfigSource, nest, read_mapping, read_overrides

BUDGET = ("trials", "epochs")


def joined_with(*words: str) -> ConfigSource:
    file = read_mapping(
        {
            "budget": {"trials": 6, "epochs": 3},
            "set": {"seed": 1, "optimizer": {"lr": 0.1, "name": "adam"}},
            "datasets": {"mine": {"name": "folder", "root": "photos"}},
            "methods": {"a": "a.yaml"},
        },
        "file",
    )
    return joined(file, read_overrides(words), BUDGET)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("seed=2", "set.seed"),
        ("optimizer.lr=0.2", "set.optimizer.lr"),
        ("budget.precision=float16", "set.budget.precision"),  # of an experiment
        ("budget.trials=9", "budget.trials"),  # of the benchmark
        ("set.seed=2", "set.seed"),
        ("datasets.mine.root=other", "datasets.mine.root"),
        ("search.sampler=gp", "search.sampler"),
        ("colour=red", "colour"),  # is refused later, by its own name
    ],
)
def test_keys_of_experiments_go_to_set(word: str, key: str) -> None:
    found, before = joined_with(word), joined_with()
    value = read_overrides([word]).values[word.partition("=")[0]]
    assert found.values == {**before.values, key: value}
    assert found.location(key) == "command line"


def test_a_group_replaces_the_group_below_it() -> None:
    found = joined_with("methods={b: b.yaml}", "set.optimizer={lr: 0.3}")
    assert nest(found.below("methods").values) == {"b": "b.yaml"}
    assert nest(found.below("set").values) == {"seed": 1, "optimizer": {"lr": 0.3}}


def test_a_root_stays_the_text_that_was_typed() -> None:
    assert joined_with("datasets.mine.root=007").texts["datasets.mine.root"] == "007"
    assert "datasets.mine.root" not in joined_with("datasets.mine={name: demo}").texts


def test_sections_are_known_groups() -> None:
    source = read_mapping({"budget": 3, "set": {}, "search": None, "metods": {"a": 1}}, "file")
    budget, methods = check_sections(source)
    assert budget == "file  budget: 3 is not allowed. Allowed: a group"
    assert methods == "file  metods: unknown key. Did you mean methods?"


def test_keys_that_the_budget_fixes_are_named_with_their_place() -> None:
    source = read_mapping({"search": {"trials": 3, "sampler": "gp"}}, "file")
    found = list(unknown_keys(source, "search", {"trials", "folds"}, "the budget fixes it"))
    assert found == ["file  search.trials: is not allowed here, the budget fixes it"]


@pytest.mark.parametrize("name", ["a", "DCML-2+x_", "9", "x" * 64])
def test_names_of_folders_are_taken(name: str) -> None:
    found: list[str] = []
    assert check_names(read_mapping({"methods": {name: "x"}}, ""), "methods", found) == [name]
    assert not found


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "\u00e4", "x" * 65, "<b>", "a\n", "_a"])
def test_other_names_are_refused_and_left_out(name: str) -> None:
    found: list[str] = []
    both = read_mapping({"methods": {name: "x", "good": "y"}}, "")
    assert check_names(both, "methods", found) == ["good"]
    (problem,) = found
    assert problem.startswith("methods: the name ")
    assert problem.isprintable()


def test_no_names_are_a_problem() -> None:
    found: list[str] = []
    assert check_names(read_mapping({}, ""), "datasets", found) == []
    assert found == ["datasets: is empty. Allowed: a name and what it is, for each dataset"]
