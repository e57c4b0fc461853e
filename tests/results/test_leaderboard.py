"""Ranks of a benchmark: ties where differences are not significant, tests by seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.significance import holm
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import average
from dmlray.results.cells import CellResult, averaged, device_seconds, read_cell
from dmlray.results.leaderboard import Leaderboard, leaderboard, read_leaderboard
from dmlray.scores import ScorePart, Scores

BUDGET = {"trials": 6, "folds": 2, "repeats": 5, "epochs": 2}
NOISE = (0.000, 0.004, -0.003, 0.002, -0.001)


def scores(values: list[float], **more: Any) -> Scores:
    known: dict[str, Any] = {
        "metrics": {"map_at_r": 0.0},
        "dataset": "toy",
        "dataset_fingerprint": "d",
        "split_fingerprint": "s",
        "test_classes": 3,
        "test_images": 12,
        "method": "margin",
        "backbone": "resnet18",
        "embedding_size": 8,
        "selection": "last",
        "tuned_by": None,
        "seed": 0,
        "zero_shot": {"map_at_r": 0.1},
    }
    parts = [ScorePart(seed, "s", 1, {"map_at_r": v}) for seed, v in enumerate(values, 1)]
    return average(Scores(**{**known, **more}), parts)


def cell(method: str, level: float, dataset: str = "toy", **more: Any) -> CellResult:
    rng = np.random.default_rng(sum(map(ord, method + dataset)))
    tuned = scores([level + noise for noise in rng.permutation(NOISE)])
    known: dict[str, Any] = {
        "tuned": tuned,
        "default": scores([level - 0.05 + noise for noise in NOISE]),
        "won": {"optimizer.lr": 0.001},
        "seconds": {"search": 1.5, "tuned": 2.0, "default": 2.0},
    }
    return CellResult(
        method=method, dataset=dataset, plan="0" * 64, metric="map_at_r", budget=BUDGET,
        **{**known, **more},
    )  # fmt: skip


def board(*levels: float) -> Leaderboard:
    return leaderboard([cell(f"m{n}", level) for n, level in enumerate(levels)])


def test_ranks_are_tied_where_no_difference_is_significant() -> None:
    rows = board(0.301, 0.5, 0.3, 0.1).boards[0].rows
    assert [(row.cell.method, row.rank) for row in rows] == [
        ("m1", 1), ("m0", 2), ("m2", 2), ("m3", 4),
    ]  # fmt: skip


def test_p_values_are_scipys_corrected_for_all_pairs() -> None:
    cells = [cell("a", 0.31), cell("b", 0.305), cell("c", 0.3)]
    found = leaderboard(cells).boards[0].differences
    values = {c.method: [part.metrics["map_at_r"] for part in c.tuned.parts] for c in cells}
    each = [stats.ttest_rel(values[d.better], values[d.worse]).pvalue for d in found]
    assert [d.found.p for d in found] == pytest.approx(each)
    assert [d.corrected for d in found] == pytest.approx(holm(each))
    assert len(found) == 3


def test_tuning_is_compared_with_the_default_setting_of_equal_seeds() -> None:
    row = board(0.3, 0.5).boards[0].rows[0]
    assert row.gain.found.value == pytest.approx(0.05)
    assert row.gain.significant


def test_a_failed_cell_is_a_row_with_its_reason_and_out_of_the_mean_ranks() -> None:
    failed = cell("m2", 0, tuned=None, default=None, failure="no trial succeeded", seconds={})
    other = [cell(f"m{n}", 0.3 + 0.1 * n, "two") for n in range(3)]
    found = leaderboard([cell("m0", 0.3), cell("m1", 0.4), failed, *other])
    assert [c.failure for c in found.boards[0].failed] == ["no trial succeeded"]
    assert found.overall.mean_ranks == {"m1": 1.0, "m0": 2.0}
    assert "2 methods" in found.overall.reason


def test_mean_ranks_and_friedman_are_over_data_sets() -> None:
    levels = {"one": (0.5, 0.4, 0.3), "two": (0.6, 0.7, 0.2), "three": (0.9, 0.3, 0.1)}
    cells = [
        cell(f"m{n}", level, dataset)
        for dataset, each in levels.items()
        for n, level in enumerate(each)
    ]
    overall = leaderboard(cells).overall
    assert overall.mean_ranks == pytest.approx({"m0": 4 / 3, "m1": 5 / 3, "m2": 3})
    means = [[c.tuned.metrics["map_at_r"] for c in cells if c.method == f"m{n}"] for n in range(3)]
    assert overall.p == pytest.approx(stats.friedmanchisquare(*means).pvalue)


def test_results_of_different_images_or_budgets_are_no_leaderboard() -> None:
    other = cell("b", 0.3, tuned=scores([0.1, 0.2], dataset_fingerprint="x"))
    with pytest.raises(DataError, match="toy: its cells were scored on different images"):
        leaderboard([cell("a", 0.3), other])
    with pytest.raises(DataError, match="b on toy: has another budget"):
        leaderboard([cell("a", 0.3), cell("b", 0.3).__class__(**{
            **vars(cell("b", 0.3)), "budget": {**BUDGET, "epochs": 9}})])  # fmt: skip


def test_a_result_is_read_back_and_a_damaged_one_named(tmp_path: Path) -> None:
    written = cell("a", 0.3)
    written.write(tmp_path)
    assert read_cell(tmp_path / "toy.a.json") == written
    assert read_leaderboard(tmp_path) == leaderboard([written])
    (tmp_path / "toy.a.json").write_text("{}")
    with pytest.raises(DataError, match=r"toy\.a\.json: is damaged .*delete it and resume"):
        read_leaderboard(tmp_path)
    with pytest.raises(ConfigError, match="holds no results"):
        read_leaderboard(tmp_path / "none")


def test_ensembles_are_averaged_over_their_seeds() -> None:
    each = [
        scores([level], seed=seed, curve=[{"map_at_r": level}])
        for seed, level in ((1, 0.2), (2, 0.4))
    ]
    found = averaged(each)
    assert found.metrics["map_at_r"] == pytest.approx(0.3)
    assert [part.seed for part in found.parts] == [1, 2]
    assert found.curve == []


def test_device_seconds_count_every_device(tmp_path: Path) -> None:
    for number, content in enumerate(
        ('{"seconds": 2.5, "devices": 2}', '{"seconds": 1.0, "devices": 1}', "x")
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cost.json").write_text(content)
    assert device_seconds([RunFolder(tmp_path / str(n)) for n in range(4)]) == 6.0
