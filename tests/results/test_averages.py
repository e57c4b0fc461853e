"""Means over folds and seeds, with half-widths and protocol."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

from dmlray.data.unseen import test_subset as unseen
from dmlray.errors import RunError
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from dmlray.learn import metrics_log
from dmlray.learn.class_split import load_dataset
from dmlray.learn.probe import probe
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble, cross_validation, repeats
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.tables import average_rows, held_out_lines
from dmlray.results.averages import average, joint, score_members
from dmlray.scores import ScorePart, Scores, half_width, protocol_line, read_scores
from tests.toy_data import draw_images, toy_words

PLACE = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    words = [*toy_words(images, 2), "protocol.folds=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


def trained(plan: Ensemble, root: Path) -> RunFolder:
    folder = RunFolder(root)
    for index in range(plan.size):
        run_training(plan.member(index), folder.member(index), lambda epoch: None, PLACE)
    return folder


@pytest.mark.parametrize("kind", ["kfold", "mlrc", "seeded"])
def test_folds_are_scored_apart_and_as_one(plan: Experiment, tmp_path: Path, kind: str) -> None:
    folds = cross_validation(override(plan, "words", {"protocol.split": kind}))
    folder = trained(folds, tmp_path)
    scores = score_members(folds, folder)

    alone = [read_scores(folder.member(i).scores) for i in range(3)]
    values = [part.metrics["map_at_r"] for part in alone]
    assert scores.metrics["map_at_r"] == pytest.approx(fmean(values))
    assert scores.half_width["map_at_r"] == pytest.approx(half_width(values))
    rows = [np.load(folder.member(i).embeddings) for i in range(3)]
    labels = torch.as_tensor(unseen(load_dataset(plan)).labels)
    whole = retrieval_scores(
        torch.from_numpy(np.hstack(rows)) / 3**0.5, RetrievalTask(labels), standard_metrics((1, 2))
    )
    assert scores.concatenated == pytest.approx(whole)
    for index, part in enumerate(scores.parts):
        lines = metrics_log.read(folder.member(index).metrics)
        assert part.validation["map_at_r"] == max(line["map_at_r"] for line in lines)
        assert part.validation["map_at_r"] == lines[part.epoch - 1]["map_at_r"]
    assert len({part.split_fingerprint for part in scores.parts}) == 3
    assert (scores.n, scores.selection) == (3, "validation")
    assert scores.split == f"3 {kind} folds" + (" of seed 0" if kind == "seeded" else "")
    assert read_scores(folder.scores) == scores

    names = [name for name, _ in average_rows(scores)]
    assert names[1:4] == ["fold 0", "fold 1", "fold 2"]
    assert names[4:] == ["separated: mean of 3", "95 % half-width", "concatenated"]
    assert len(held_out_lines(scores)) == 3
    assert f"n = 3; seed 0; split {scores.split} {scores.split_fingerprint}" in protocol_line(
        scores
    )


def test_repeats_share_their_split_and_differ_in_their_seeds(
    plan: Experiment, tmp_path: Path
) -> None:
    twice = repeats(override(plan, "words", {"protocol.selection": "last", "seed": 4}), 2)
    scores = score_members(twice, trained(twice, tmp_path))
    assert [part.seed for part in scores.parts] == [5, 6]
    assert [part.epoch for part in scores.parts] == [2, 2]
    assert {part.split_fingerprint for part in scores.parts} == {scores.split_fingerprint}
    assert (scores.seed, scores.n, scores.split) == (4, 2, "all training classes")
    assert not scores.concatenated
    assert not held_out_lines(scores)
    assert scores.parts[0].metrics != scores.parts[1].metrics


def test_what_is_missing_or_damaged_is_told_and_never_averaged_over(
    plan: Experiment, tmp_path: Path
) -> None:
    folds = cross_validation(plan)
    with pytest.raises(RunError, match="no scores yet; resume the run to finish it"):
        score_members(folds, RunFolder(tmp_path / "nothing"))
    folder = trained(folds, tmp_path / "run")
    folder.member(1).embeddings.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"001/embeddings.npy: is damaged"):
        score_members(folds, folder)
    metrics_log = folder.member(2).metrics
    # Without the first line the best epoch is undefined.
    metrics_log.write_bytes(metrics_log.read_bytes().partition(b"\n")[2])
    with pytest.raises(RunError, match=r"002/metrics.jsonl: is missing or damaged"):
        score_members(folds, folder)
    metrics_log.unlink()
    with pytest.raises(RunError, match=r"002/metrics.jsonl: is missing"):
        score_members(folds, folder)
    assert not folder.scores.exists()


def test_each_device_and_precision_behind_an_average_is_named(plan: Experiment) -> None:
    first = Scores({"map_at_r": 0.0}, "demo", "f", "s", 2, 9, "dreml", "toy", 8, "last", None, 0)
    found = [("tf32", "V100, CUDA 12.4"), ("bfloat16", "H100, CUDA 13.0"), ("tf32", "")]
    members = [replace(first, precision=name, computed_on=gpu) for name, gpu in found]
    whole = joint(Ensemble(experiment=plan, size=3, vary="seed"), members)
    assert whole.precision == "tf32 + bfloat16"
    assert whole.computed_on == "V100, CUDA 12.4 + H100, CUDA 13.0"


def test_one_training_has_no_interval() -> None:
    shared = Scores({"map_at_r": 0.0}, "demo", "f", "s", 2, 9, "dreml", "toy", 8, "last", None, 0)
    scores = average(shared, [ScorePart(1, "s", 3, {"map_at_r": 0.5})])
    assert (scores.metrics, scores.half_width, scores.n) == ({"map_at_r": 0.5}, {}, 1)


def test_a_probe_measures_and_leaves_nothing(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = probe(plan, PLACE, folds=True)
    assert (found.steps, found.train_images, found.scored_images) == (4, 32, 16)
    assert 0 < found.held < found.memory
    assert found.gpu_memory == 0
    assert min(found.start, found.step, found.image) > 0
    whole = probe(override(plan, "words", {"protocol.selection": "last"}), PLACE, folds=False)
    assert (whole.steps, whole.train_images, whole.scored_images) == (6, 48, 0)
    assert not list(tmp_path.iterdir())
