"""Thresholds of ensembles and merges: those of the concatenation, where all held out one fold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.cluster.ensemble.merge_actor import Merger
from dmlray.errors import DataError
from dmlray.evaluation.comparisons import Comparisons
from dmlray.evaluation.task import RetrievalTask
from dmlray.evaluation.verification import Verification, verify
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import joined, members_of
from dmlray.results.finished_runs import test_task as task_of
from dmlray.results.merged_file import read_merged
from dmlray.scores import Scores

IMAGES = 8


def expected(runs: Path, weights: tuple[float, ...] = (1, 1)) -> Verification:
    """As one training whose embeddings are those of both side by side."""
    sides = []
    for name in ("validation", "embeddings"):
        parts = [
            torch.from_numpy(np.load(runs / run / f"{name}.npy")) * weight**0.5
            for run, weight in zip(("a", "b"), weights, strict=True)
        ]
        rows = torch.nn.functional.normalize(torch.cat(parts, 1))
        labels = torch.arange(len(rows) // IMAGES).repeat_interleave(IMAGES)
        sides.append(Comparisons([rows], RetrievalTask(labels)))
    return verify(*sides)


def close(found: Verification, wanted: Verification) -> None:
    """Equal but for pairs that rounding moves across the edge of a bin."""
    assert found.thresholds.keys() == wanted.thresholds.keys()
    assert (found.images, found.negatives) == (wanted.images, wanted.negatives)
    for name, threshold in found.thresholds.items():
        assert threshold.cosine == pytest.approx(wanted.thresholds[name].cosine, abs=2e-4)
        rate = wanted.thresholds[name].test_fnmr.value
        assert threshold.test_fnmr.value == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
def test_a_merge_has_the_thresholds_of_the_concatenation(
    runs: Path,
    merged: Callable[..., Scores],
    weights: tuple[float, ...],
) -> None:
    close(merged("a", "b", weights=weights).verification, expected(runs, weights or (1, 1)))


def test_an_ensemble_has_them_from_its_merge_actor(
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(runs / "cache"))
    members = [member for name in ("a", "b") for member in members_of(runs / name)]
    actor = Merger(task_of(members), members[0].plan.protocol, 1, False)
    scores = actor.with_thresholds(members, joined(members, actor.add(members)[-1], []))
    close(scores.verification, expected(runs))
    assert scores.no_threshold == ""


def test_a_projection_has_thresholds_of_its_own_vectors(
    tmp_path: Path,
    runs: Path,
    merged: Callable[..., Scores],
) -> None:
    found = merged("a", "b", pca=3, whiten=True).verification
    members, projection = read_merged(RunFolder(tmp_path / "out"))
    rows = projection([member.validation_embeddings() for member in members])
    tested = torch.from_numpy(np.load(tmp_path / "out" / "embeddings.npy"))
    tasks = [RetrievalTask(torch.arange(n).repeat_interleave(IMAGES)) for n in (2, 6)]
    close(found, verify(Comparisons([rows], tasks[0]), Comparisons([tested], tasks[1])))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a", "last"), "a member has no threshold: every training class was trained on"),
        (("a", "one"), "members held out different classes"),
    ],
)
def test_without_common_held_out_classes_there_is_a_reason(
    merged: Callable[..., Scores],
    names: tuple[str, str],
    reason: str,
) -> None:
    scores = merged(*names)
    assert scores.verification is None
    assert reason in scores.no_threshold


def test_members_that_lack_the_file_or_are_older_are_a_reason_and_damage_is_an_error(
    runs: Path,
    merged: Callable[..., Scores],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = runs / "b" / "validation.npy"
    content, stored = file.read_bytes(), (runs / "b" / "scores.json").read_bytes()
    try:
        file.write_bytes(content[:-1] + b"\x00\x00")
        with pytest.raises(DataError, match=r"validation\.npy: .*delete it and resume"):
            merged("a", "b")
        file.unlink()
        assert merged("a", "b").no_threshold.startswith("validation.npy of a member is missing")
        file.write_bytes(content)
        scores = members_of(runs / "b")[0].scores
        replace(scores, verification=None).write(runs / "b" / "scores.json")
        assert "scored by a version without thresholds" in merged("a", "b").no_threshold
    finally:
        file.write_bytes(content)
        (runs / "b" / "scores.json").write_bytes(stored)
