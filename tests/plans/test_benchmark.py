"""A benchmark: every cell is a legal search under one budget, and all problems come at once."""

from pathlib import Path
from typing import Any

import pytest

from dmlray.distributions import Float
from dmlray.errors import ConfigError
from dmlray.plans.benchmark import Benchmark, read_benchmark
from dmlray.plans.plan_files import BENCHMARKS, shipped

BUDGET = {"trials": 6, "folds": 2, "repeats": 5, "epochs": 3}
PLAN: dict[str, Any] = {
    "budget": BUDGET,
    "datasets": {"demo": {"name": "demo"}, "mine": {"name": "folder", "root": "photos"}},
    "methods": {
        "anchor": "experiments/proxy_anchor_demo.yaml",
        "loss": {
            "experiment": "experiments/pml_demo.yaml",
            "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-3, "log": True}},
        },
    },
}


def changed(**more: Any) -> dict[str, Any]:
    return {**PLAN, **more}


def titles(plan: Benchmark) -> list[str]:
    return [cell.title for cell in plan.cells]


def test_every_cell_has_the_same_budget() -> None:
    plan = read_benchmark(PLAN)
    assert titles(plan) == ["anchor on demo", "loss on demo", "anchor on mine", "loss on mine"]
    for cell in plan.cells:
        settings, experiment = cell.search.settings, cell.search.experiment
        assert (settings.trials, settings.repeats, cell.repeats) == (6, 5, 5)
        assert (experiment.protocol.folds, experiment.budget.epochs) == (2, 3)
        assert (settings.scheduler, settings.sampler) == ("none", "tpe")
        assert cell.trainings == 6 * 2 + 2 * 5


def test_a_search_file_brings_its_space_and_not_its_budget() -> None:
    plan = read_benchmark(changed(methods={"drml": "searches/drml_demo.yaml"}))
    search = plan.cells[0].search
    assert search.settings.scheduler == "none"  # the file has asha
    assert search.trials == 6  # the file has 12
    assert "method.margin" in search.ranges.space


def test_what_the_benchmark_fixes_is_not_searched() -> None:
    for cell in read_benchmark(changed(set={"optimizer": {"lr": 5e-4}})).cells:
        assert "optimizer.lr" not in cell.search.ranges.space
        assert cell.search.experiment.optimizer.lr == 5e-4
    anchor = changed(methods={"anchor": PLAN["methods"]["anchor"]})
    search = read_benchmark(anchor, ["method.margin=0.2"]).cells[0].search
    assert "method.margin" not in search.ranges.space  # of the method's own SPACE
    assert "method.alpha" in search.ranges.space


def test_members_make_an_ensemble_whose_trainings_all_count() -> None:
    entry = {"experiment": "experiments/dreml_demo.yaml", "members": 8}
    cell = read_benchmark(changed(methods={"dreml": entry})).cells[0]
    assert cell.trainings == 6 * 2 + 2 * 5 * 8
    assert cell.search.settings.repeats == 0  # the benchmark repeats ensembles instead


def test_the_command_line_changes_the_budget_data_sets_and_all_experiments(tmp_path: Path) -> None:
    words = [
        "budget.epochs=7", "datasets.mine.root=2024", "budget.head_warmup_steps=9", "seed=3",
        "search.startup_trials=2",
    ]  # fmt: skip
    cell = read_benchmark(PLAN, words).cells[-1]
    experiment = cell.search.experiment
    assert (experiment.budget.epochs, experiment.budget.head_warmup_steps) == (7, 9)
    assert experiment.seed == 3
    assert experiment.data.root == Path("2024").absolute()  # text, not a number
    assert cell.search.settings.startup_trials == 2


def test_a_written_plan_reads_back_as_equal_cells(tmp_path: Path) -> None:
    plan = read_benchmark(PLAN, ["set.seed=4"])
    plan.write(tmp_path / "benchmark.yaml")
    again = read_benchmark(tmp_path / "benchmark.yaml")
    assert [cell.fingerprint for cell in again.cells] == [c.fingerprint for c in plan.cells]


def test_a_fingerprint_is_of_what_scores_depend_on() -> None:
    def first(*words: str) -> str:
        return read_benchmark(PLAN, list(words)).cells[2].fingerprint

    same = first()
    assert first("datasets.mine.root=elsewhere", "search.cpus=2", "loggers=[]") == same
    for word in ("budget.epochs=4", "budget.repeats=6", "optimizer.lr=0.0004", "seed=1"):
        assert first(word) != same


def problems(plan: Any, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_benchmark(plan, list(words))
    return str(caught.value)


def test_an_unknown_method_is_one_line_for_all_data_sets() -> None:
    text = problems(changed(methods={"x": {"method": {"name": "drmll"}}}))
    assert text == "`file`: methods.x: method.name: unknown method 'drmll'. Did you mean drml?"


@pytest.mark.parametrize("section", ["datasets", "methods"])
def test_an_empty_product_is_refused(section: str) -> None:
    assert f"{section}: is empty" in problems(changed(**{section: {}}))
    without = {key: value for key, value in PLAN.items() if key != section}
    assert f"{section}: is empty" in problems(without)


def test_all_problems_come_at_once() -> None:
    text = problems(
        changed(
            budget={"trials": 0, "folds": 2, "epochs": 3},
            search={"trials": 3, "sampler": "luck"},
            datasets={"a/b": {"name": "demo"}},
            methods={"<script>": 3, "no": "experiments/drml_dem.yaml", "none": 3},
            colour="red",
        )
    )
    for part in (
        "budget.trials: 0 is not allowed", "budget.repeats: is missing",
        "search.trials: is not allowed here", "search.sampler: 'luck' is not allowed",
        "datasets: the name 'a/b' is not allowed", "methods: the name '<script>' is not allowed",
        "methods.no: experiments/drml_dem.yaml: no such file. Did you mean",
        "methods.none: 3 is not allowed", "colour: unknown key",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize("given", ["letters", "/data/cub", None, 3, [], {}])
def test_a_data_set_is_a_group_with_a_name(given: Any) -> None:
    """Else its cells would be of the default data set, under another's name."""
    assert "datasets.letters: " in problems(changed(datasets={"letters": given}))
    assert "datasets.letters: 'cars' is not" in problems(PLAN, "datasets.letters=cars")
    nameless = problems(changed(datasets={"mine": {"root": "photos"}}))
    assert "datasets.mine: has root and no name" in nameless


def test_a_problem_of_one_data_set_names_it() -> None:
    text = problems(changed(datasets={"one": {"name": "demo"}, "two": {"name": "demo", "rot": 1}}))
    assert "methods.anchor on two: data.rot: unknown key" in text


@pytest.mark.parametrize(
    "entry", [{}, {"members": 0, "experiment": "x"}, {"space": {}, "trials": 3}]
)
def test_a_wrong_entry_is_refused(entry: dict[str, Any]) -> None:
    assert "methods.x: " in problems(changed(methods={"x": entry}))


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith(BENCHMARKS)])
def test_shipped_benchmarks_are_legal_fair_and_name_no_machine(name: str) -> None:
    plan = read_benchmark(Path(name))
    assert len(plan.cells) == len(plan.content["methods"]) * len(plan.content["datasets"])
    assert all(cell.search.experiment.data.root is None for cell in plan.cells)
    spaces = [cell.search.ranges.space for cell in plan.cells]
    assert len({len(space) for space in spaces}) == 1  # as many settings for all
    assert all(isinstance(space["optimizer.lr"], Float) for space in spaces)
