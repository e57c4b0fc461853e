"""Plan -> Scores: train, then open the test classes once. The plain function that runs anywhere."""

import json

import numpy as np
import torch
import torch.nn.functional as F

from dmlray.data import folds
from dmlray.data.unseen import test_subset
from dmlray.evaluation import clustering
from dmlray.evaluation.clustering import Progress
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import checkpoint, journal
from dmlray.learn.environment import check_images, record_environment
from dmlray.learn.loop import Report
from dmlray.learn.scores import Scores, read_scores
from dmlray.learn.training import (
    Place,
    Task,
    Training,
    fold_task,
    full_task,
    load_dataset,
)
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import write_experiment
from dmlray.plans.folder import RunFolder
from dmlray.storage import write_array, write_json


def job(
    plan: Experiment, folder: RunFolder, report: Report, place: Place, with_zero_shot: bool = True
) -> Scores:
    """Train as `plan` says, telling `report` each epoch, and score the classes never seen.

    Goes on from the folder's last checkpoint; a finished folder is only read.
    """
    if folder.scores.exists():
        return read_scores(folder.scores)
    training = Training(
        plan, task(plan), folder, place, keep_best=plan.protocol.selection != "last"
    )
    if place.team.leads:
        folder.make()
        record_environment(folder, plan.seed, training.task.dataset, place)
        write_experiment(folder.plan("experiment"), plan)
    if with_zero_shot and not folder.last_checkpoint.exists():
        zero_shot = _zero_shot(training)
        if place.team.leads:
            write_json(folder.zero_shot, zero_shot)
    for epoch in training.epochs():
        report(epoch)
    return _finish(training)


def task(plan: Experiment) -> Task:
    """What the plan's selection rule trains on and chooses by."""
    dataset = load_dataset(plan)
    match plan.protocol.selection:
        case "validation":
            return fold_task(plan, dataset, plan.protocol.fold)
        case "last":
            return full_task(dataset)
        case "best_on_test":
            return Task(dataset, folds.train_subset(dataset), test_subset(dataset))


def _finish(training: Training) -> Scores:
    """Score the chosen epoch on the test classes; write embeddings and scores, scores last."""
    plan, folder, team = training.plan, training.folder, training.place.team
    team.wait()  # for the one that writes
    if plan.protocol.selection != "last":
        checkpoint.load(folder.best_checkpoint, training.learner, None)
    progress = journal.count(folder.counting, clustering.COUNTED) if team.leads else None
    embeddings, metrics = _score(training, progress)
    scores = _scores(training, metrics, embeddings.shape[1])
    if team.leads:
        write_array(folder.embeddings, embeddings.cpu().numpy().astype(np.float32))
        scores.write(folder.scores)
        folder.counting.unlink(missing_ok=True)
    return scores


def evaluate(
    plan: Experiment, folder: RunFolder, place: Place, progress: Progress | None = None
) -> Scores:
    """Score a finished run again, from its checkpoint; `progress` counts what takes long."""
    training = finished(plan, folder, place)
    embeddings, metrics = _score(training, progress)
    return _scores(training, metrics, embeddings.shape[1])


def finished(plan: Experiment, folder: RunFolder, place: Place) -> Training:
    """The learner of a finished run, as it was scored."""
    training = Training(plan, task(plan), folder, place)
    check_images(folder, training.task.dataset)
    chosen = folder.last_checkpoint if plan.protocol.selection == "last" else folder.best_checkpoint
    checkpoint.load(chosen, training.learner, None)
    return training


def _score(
    training: Training, progress: Progress | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Embeddings (N, D) of the test images and all scores that the protocol asks for."""
    subset = test_subset(training.task.dataset)
    embeddings, metrics = training.score(subset)
    if training.plan.protocol.nmi:
        metrics |= clustering.nmi(embeddings, torch.as_tensor(subset.labels), progress=progress)
    return embeddings, metrics


def _zero_shot(training: Training) -> dict[str, float]:
    """Scores of the trunk's pooled features before any training, on the test classes."""
    subset = test_subset(training.task.dataset)
    features = F.normalize(training.embed(training.trunk, subset))
    labels = torch.as_tensor(subset.labels, device=features.device)
    return retrieval_scores(features, labels, training.plan.protocol.depths(len(subset)))


def _scores(training: Training, metrics: dict[str, float], size: int) -> Scores:
    plan, dataset = training.plan, training.task.dataset
    subset, zero_shot = test_subset(dataset), training.folder.zero_shot
    return Scores(
        metrics=metrics,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        remarks=[*dataset.remarks, *filter(None, [plan.data.transform.remark])],
        split=plan.protocol.classes(),
        split_fingerprint=folds.fingerprint(dataset, training.task.train),
        test_classes=len(subset.classes),
        test_images=len(subset.rows),
        method=plan.method.name,
        backbone=plan.backbone.name,
        embedding_size=size,
        selection=plan.protocol.selection,
        tuned_by=plan.protocol.tuned_by,
        seed=plan.seed,
        clustering=clustering.NAME if plan.protocol.nmi else None,
        zero_shot=json.loads(zero_shot.read_text()) if zero_shot.exists() else {},
    )
