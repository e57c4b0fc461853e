"""Queries, gallery and groups hold in every score: trainings, folds, ensembles and merges."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dmlray.cluster.ensemble.merge_actor import Merger
from dmlray.evaluation.task import RetrievalTask
from dmlray.learn import metrics_log
from dmlray.learn.class_split import fold_split, load_dataset
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.preflight import preflight
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import Training
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import score_members
from dmlray.results.finished_runs import Member, ensemble_curve, member_of
from dmlray.results.finished_runs import test_task as task_of
from dmlray.results.merge_runs import merge
from tests.evaluation import slow
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))
TRAIN, CLASSES, IMAGES = 6, 12, 6  # class 11 is only in the gallery, 10 has nothing in it


def role(label: int, number: int) -> str:
    if label >= CLASSES - 2:
        return "gallery" if label == CLASSES - 1 else "query"
    return ("query", "query", "gallery", "gallery", "gallery", "both")[number]


def camera(label: int, number: int) -> int:
    return (label + number) % 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images", CLASSES, IMAGES)
    rows = ["path,label,split,role,group"]
    for label in range(CLASSES):
        side = "train" if label < TRAIN else "test"
        rows += [
            f"class{label:02d}/{n}.png,{label},{side},{role(label, n)},{camera(label, n)}"
            for n in range(IMAGES)
        ]
    (images / "images.csv").write_text("\n".join(rows))
    words = [
        *toy_words(images / "images.csv", 2),
        "data.name=csv",
        "data.split=given",
        "protocol.folds=2",
        "protocol.selection=validation",
        "protocol.extra_metrics=[precision_at_2, mean_reciprocal_rank]",
    ]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def members(plan: Experiment, tmp_path_factory: pytest.TempPathFactory) -> list[Member]:
    whole, folder = Ensemble(plan, 2, "seed"), RunFolder(tmp_path_factory.mktemp("runs") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for index in range(2):
            run_training(whole.member(index), folder.member(index), lambda epoch: None, RUNTIME)
    return [member_of(whole, folder, index) for index in range(2)]


def looped(rows: Tensor, classes: range) -> dict[str, float]:
    """Scores of `classes` by the slow loop, with the roles and cameras as they were drawn."""
    images = [(label, number) for label in classes for number in range(IMAGES)]
    task = RetrievalTask(
        torch.tensor([label for label, _ in images]),
        torch.tensor([i for i, image in enumerate(images) if role(*image) != "gallery"]),
        torch.tensor([i for i, image in enumerate(images) if role(*image) != "query"]),
        torch.tensor([camera(*image) for image in images]),
    )
    return slow.scores(rows, task, (1, 2))


def equal(found: dict[str, float], rows: Tensor, classes: range = range(TRAIN, CLASSES)) -> None:
    expected = looped(rows, classes)
    assert {"recall_at_1", "recall_at_2", "map_at_r", "precision_at_2"} < found.keys()
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-6)


def test_a_training_is_scored_and_chosen_by_roles(members: list[Member]) -> None:
    member = members[0]
    equal(member.scores.metrics, member.embeddings())
    assert member.scores.remarks[:2] == [
        "18 queries are searched for in 22 gallery images (6 of labels that no query has); images"
        " of equal label and group are not compared",
        "6 of 18 test queries have no match in the gallery and do not count, first class10/0.png",
    ]
    assert member.scores.test_images == (CLASSES - TRAIN) * IMAGES
    assert member.scores.zero_shot.keys() == member.scores.metrics.keys()
    assert evaluate(member.plan, member.folder, RUNTIME).metrics == member.scores.metrics


def test_thresholds_compare_queries_with_the_gallery_of_other_cameras(
    members: list[Member],
) -> None:
    member = members[0]
    found, rows = member.scores.verification, member.validation_embeddings()
    split = fold_split(member.plan, load_dataset(member.plan), member.plan.protocol.fold)
    files = [load_dataset(member.plan).files[row] for row in split.validation.rows]
    images = [(int(file[5:7]), int(file.split("/")[1][0])) for file in files]
    pairs = [
        (float(rows[i] @ rows[j]), one[0] == other[0])
        for i, one in enumerate(images)
        for j, other in enumerate(images)
        if role(*one) != "gallery" and role(*other) != "query" and i != j
        if one[0] != other[0] or camera(*one) != camera(*other)
    ]
    assert found.positives == sum(same for _, same in pairs)
    assert found.negatives == sum(not same for _, same in pairs)
    best = found.thresholds["best_f1"]
    missed = [cosine < best.cosine for cosine, same in pairs if same]
    assert best.fnmr == pytest.approx(sum(missed) / len(missed))


def test_ensembles_of_every_size_keep_roles(members: list[Member]) -> None:
    task, protocol = task_of(members), members[0].plan.protocol
    curve = ensemble_curve(members, task, protocol, RUNTIME.device)
    rows = [member.embeddings() for member in members]
    both = torch.cat(rows, 1) / 2**0.5
    equal(curve[0], rows[0])
    equal(curve[1], both)
    for grown, at_once in zip(Merger(task, protocol, 1, False).add(members), curve, strict=True):
        assert grown == pytest.approx(at_once, abs=1e-6)


@pytest.mark.parametrize("options", [{"pca": 3}, {"greedy": True}])
def test_merges_keep_roles(
    options: dict[str, object], members: list[Member], tmp_path: Path
) -> None:
    runs, folder = tuple(member.folder.path for member in members), RunFolder(tmp_path)
    settings = Merge(runs, **options)  # type: ignore[arg-type]
    scores = merge(settings, folder, RUNTIME, lambda title: lambda done, total: None)
    if "pca" in options:
        equal(scores.metrics, torch.from_numpy(np.load(folder.embeddings)))
    else:
        chosen = [m.embeddings() for m in members if str(m.folder) in scores.remarks[-1]]
        equal(scores.metrics, torch.cat(chosen, 1) / len(chosen) ** 0.5)


def test_folds_are_validated_by_roles(plan: Experiment, tmp_path: Path) -> None:
    preflight(plan, folds=True)
    folds = Ensemble(plan, 2, "fold")
    for index in range(2):
        place = RunFolder(tmp_path / "cv").member(index)
        run_training(folds.member(index), place, lambda epoch: None, RUNTIME)
    averaged = score_members(folds, RunFolder(tmp_path / "cv"))
    rows = [member_of(folds, RunFolder(tmp_path / "cv"), i).embeddings() for i in range(2)]
    equal(averaged.concatenated, torch.cat(rows, 1) / 2**0.5)
    last = override(plan, "test", {"protocol.selection": "last"})
    *_, epoch = lockstep(last, RunFolder(tmp_path / "search"), RUNTIME)
    fold = metrics_log.read(RunFolder(tmp_path / "search").fold(1).metrics)[-1]
    assert epoch.metrics["map_at_r"] == pytest.approx(
        (fold["map_at_r"] + epoch.metrics["fold0/map_at_r"]) / 2
    )


def test_a_fold_s_epochs_are_those_of_its_roles(plan: Experiment, tmp_path: Path) -> None:
    training = Training(
        plan, fold_split(plan, load_dataset(plan), 1), RunFolder(tmp_path / "run"), RUNTIME
    )
    assert training.split.validation is not None
    embeddings, scores = training.score(training.split.validation)
    equal(scores, embeddings, range(TRAIN // 2, TRAIN))
