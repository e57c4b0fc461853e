"""Merging of finished runs that were scored on the same images."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.errors import ConfigError, DataError, DmlrayError, RunError
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from dmlray.plans.merge import Merge, read_merge, read_weights
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import members_of
from dmlray.results.merge_runs import merge
from dmlray.scores import Scores
from tests.results.conftest import HERE


def concatenated(runs: Path, weights: tuple[float, float] = (1, 1)) -> dict[str, float]:
    parts = [np.load(runs / name / "embeddings.npy") for name in ("a", "b")]
    rows = [part * weight**0.5 for part, weight in zip(parts, weights, strict=True)]
    labels = torch.arange(6).repeat_interleave(8)
    return retrieval_scores(
        torch.from_numpy(np.concatenate(rows, 1)), RetrievalTask(labels), standard_metrics((1, 2))
    )


def test_merging_is_concatenating_unit_embeddings(
    runs: Path, merged: Callable[..., Scores]
) -> None:
    scores = merged("a", "b")
    assert scores.metrics == pytest.approx(concatenated(runs), abs=1e-6)
    assert scores.curve[0] == pytest.approx(members_of(runs / "a")[0].scores.metrics, abs=1e-6)
    assert (scores.method, scores.embedding_size) == ("proxy_anchor + dreml", 11)
    assert scores.remarks == []
    assert scores.selection == "validation"
    weighted = merged("a", "b", weights=(1.0, 3.0))
    assert weighted.metrics == pytest.approx(concatenated(runs, (1, 3)), abs=1e-6)
    assert weighted.remarks == ["cosines of the runs weighted 1, 3"]


def test_runs_of_different_rules_say_so(runs: Path, merged: Callable[..., Scores]) -> None:
    scores, (one, other) = (
        merged("a", "last"),
        (members_of(runs / n)[0].scores for n in ("a", "last")),
    )
    assert scores.selection == "mixed"
    assert one.split != other.split
    assert scores.split == f"{one.split} + {other.split}"  # as its hash is of both


def test_a_projection_is_fitted_on_training_classes_and_marked(
    tmp_path: Path, merged: Callable[..., Scores]
) -> None:
    scores = merged("a", "b", pca=3, whiten=True)
    assert scores.remarks == ["PCA to 3 dimensions, whitened, fitted on the training classes"]
    assert scores.embedding_size == 3
    assert np.load(tmp_path / "out" / "embeddings.npy").shape == (48, 3)
    files = sorted((tmp_path / "out" / "embeddings").glob("*_train.npy"))
    assert [np.load(file).shape for file in files] == [(48, 8), (48, 3)]
    stamps = [file.stat().st_mtime_ns for file in files]
    assert merged("a", "b", pca=3, whiten=True) == scores  # embeddings are reused
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_greedy_chooses_on_the_classes_held_out(
    tmp_path: Path, merged: Callable[..., Scores]
) -> None:
    scores = merged("a", "b", greedy=True)
    assert "members chosen greedily" in scores.remarks[0]
    assert len(scores.curve) in (1, 2)
    files = (tmp_path / "out" / "embeddings").glob("*_validation.npy")
    assert {len(np.load(file)) for file in files} == {16}  # 2 of 6 classes


@pytest.mark.parametrize(
    ("names", "settings", "error", "message"),
    [
        (("a", "other_images"), {}, DataError, r"other_images: was scored on folder .*10 cl|5 cl"),
        (("a", "last"), {"greedy": True}, ConfigError, "last held out nothing"),
        (("one",), {"greedy": True}, ConfigError, "fold 0 has one class .*Allowed: 2 or 3 folds"),
        (("a", "a"), {}, ConfigError, "a: is named twice"),
        ((), {}, ConfigError, "names no run"),
        (("a", "b"), {"weights": (1.0,)}, ConfigError, "Allowed: 2 numbers above 0"),
        (("a", "b"), {"weights": (1.0, 0.0)}, ConfigError, "Allowed: 2 numbers above 0"),
        (("a", "b"), {"pca": 0}, ConfigError, "0 is not allowed. Allowed: at least 1"),
        (("a", "b"), {"pca": 12}, ConfigError, "12 is not allowed. Allowed: 1 to"),
        (("a", "images"), {}, ConfigError, "is not a run folder"),
    ],
)
def test_what_cannot_be_merged_is_told(
    names: tuple[str, ...],
    settings: dict[str, object],
    error: type[DmlrayError],
    message: str,
    merged: Callable[..., Scores],
) -> None:
    with pytest.raises(error, match=message) as caught:
        merged(*names, **settings)
    assert "\n" not in str(caught.value)


def test_damaged_and_unfinished_runs_are_told(runs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a" / "embeddings.npy").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"embeddings\.npy: cannot be read"):
        members_of(tmp_path / "a")[0].embeddings()
    np.save(tmp_path / "a" / "embeddings.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match=r"has shape \(3, 8\), but its scores \(48, 8\)"):
        members_of(tmp_path / "a")[0].embeddings()
    (tmp_path / "a" / "scores.json").unlink()
    with pytest.raises(RunError, match="no scores yet"):
        members_of(tmp_path / "a")


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = Merge((tmp_path / "a", tmp_path / "b"), (1.0, 2.0), 5, True, True)
    plan.write(tmp_path / "merge.yaml")
    assert read_merge(tmp_path / "merge.yaml") == plan
    (tmp_path / "merge.yaml").write_text("runs: 3\n")
    with pytest.raises(ConfigError, match="is no plan of a merge"):
        read_merge(tmp_path / "merge.yaml")
    assert read_weights("1,0.5") == [1.0, 0.5]
    with pytest.raises(ConfigError, match="`weights`: '1;2' is not allowed"):
        read_weights("1;2")


@pytest.mark.parametrize(
    "text",
    ["runs: 3", "runs: []", "runs: [a]\nweights: [true]", "runs: [a]\nweights: [1, 2]",
     "runs: [a]\nweights: [.inf]", "runs: [a]\nweights: [-1]", "runs: [a, ./a]",
     "runs: [a]\npca: 1.5", "runs: [a]\npca: true", "runs: [a]\npca: 0", "runs: [a]\nwhiten: 1",
     "runs: [a]\nunknown: 1", "runs: {a: 1}", "weights: [1]", 'runs: ["a\\0b"]'],
)  # fmt: skip
def test_a_plan_of_a_merge_with_unfit_values_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "merge.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"merge\.yaml: "):
        read_merge(tmp_path / "merge.yaml")


def test_a_merge_that_names_itself_is_refused(runs: Path, tmp_path: Path) -> None:
    plan = Merge((tmp_path / "merge",))
    (tmp_path / "merge").mkdir()
    plan.write(tmp_path / "merge" / "merge.yaml")
    with pytest.raises(ConfigError, match="is a merge"):
        merge(plan, RunFolder(tmp_path / "merge"), HERE, lambda title: lambda done, total: None)


@pytest.mark.parametrize("damage", [b"torn", None])
def test_embeddings_of_a_merge_that_were_changed_are_made_again(
    tmp_path: Path, merged: Callable[..., Scores], damage: bytes | None
) -> None:
    scores = merged("a", "b", pca=3)
    file = next((tmp_path / "out" / "embeddings").glob("a_*_train.npy"))
    sound = file.read_bytes()
    if damage:
        file.write_bytes(damage)
    else:
        np.save(file, np.load(file)[::-1])
    assert merged("a", "b", pca=3) == scores
    assert file.read_bytes() == sound


def test_the_embeddings_of_a_merge_have_their_hash(
    tmp_path: Path, merged: Callable[..., Scores]
) -> None:
    scores = merged("a", "b", pca=3)
    whole = (tmp_path / "out" / "embeddings.npy").read_bytes()
    assert scores.embeddings_sha256 == hashlib.sha256(whole).hexdigest()
    assert merged("a", "b").embeddings_sha256 is None
