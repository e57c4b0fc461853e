"""Plan -> Scores: train, then open the test classes once. The plain function that runs anywhere."""

from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F

from dmlray.atomic_files import write_json
from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.unseen import test_subset
from dmlray.errors import DataError, RunError
from dmlray.evaluation import clustering
from dmlray.evaluation.clustering import Progress, clustering_scores
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import metrics_log
from dmlray.learn.batch_checks import check_batchnorm
from dmlray.learn.chosen_epoch import check_chosen, chosen_checkpoint
from dmlray.learn.class_split import ClassSplit, fold_split, full_split, load_dataset, with_folds
from dmlray.learn.embedding_files import write_embeddings, write_items
from dmlray.learn.environment import check_images, computed_on, record_environment
from dmlray.learn.loop import Report
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import WITHOUT_PAIRS, Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores, parse_scores, read_scores, read_zero_shot


def run_training(
    plan: Experiment,
    folder: RunFolder,
    report: Report,
    runtime: Runtime,
    with_zero_shot: bool = True,
) -> Scores:
    """Train as `plan` says, telling `report` each epoch, and score the classes never seen.

    Goes on from the folder's last checkpoint; a finished folder is only read.
    """
    group = runtime.group
    if finished := group.ask_main(lambda: _recorded(plan, folder)):
        return parse_scores(finished)
    dataset = load_dataset(plan)
    _check_equal_images(dataset, group)
    plan = with_folds(plan, dataset)
    keep_best = plan.protocol.selection != "last"
    training = Training(plan, class_split(plan, dataset), folder, runtime, keep_best)
    if group.size > 1 and runtime.device.type == "cpu":  # GPUs normalise a batch together
        check_batchnorm(plan, [training.split.train], training.trunk, group.size)
    group.ask_main(lambda: _record(training))
    if with_zero_shot and not training.resumed:
        zero_shot = _zero_shot(training)
        if group.is_main:
            write_json(folder.zero_shot, zero_shot)
    with closing(training.epochs()) as epochs:
        for epoch in epochs:
            report(epoch)
    return _finish(training)


def scores_of(folder: RunFolder, plan: Experiment) -> Scores:
    """The scores of the finished training of `plan` in `folder`.

    Raises:
        RunError: If there are none yet, or they are damaged or those of another run.
    """
    scores = read_scores(folder.scores)
    theirs = f"{scores.method}, seed {scores.seed}"
    ours = f"{plan.method.name}, seed {plan.seed}"
    if theirs != ours:
        problem = f"are scores of another run ({theirs}), its plan is {ours}"
        raise RunError(f"{folder.scores}: {problem}; delete it and resume the run")
    return scores


def _recorded(plan: Experiment, folder: RunFolder) -> dict[str, Any] | None:
    """The scores of a finished folder; None if something is left to do."""
    if folder.scores.exists():
        scores = scores_of(folder, plan)
        if folder.embeddings.exists() or not folder.last_checkpoint.exists():
            return asdict(scores)  # else the embeddings are made again
    read_zero_shot(folder.zero_shot)  # damage is known before anything is trained
    return None


def _check_equal_images(dataset: Dataset, group: ProcessGroup) -> None:
    """Refuse workers that find different images, as on a shared disk that is not up to date."""
    found = group.gather_json(dataset.fingerprint)
    if len(set(found)) > 1:
        problem = "the nodes of this training find different images there"
        raise DataError(f"{dataset.root}: {problem} (fingerprints {', '.join(sorted(set(found)))})")


def _record(training: Training) -> None:
    plan, folder, dataset = training.plan, training.folder, training.split.dataset
    folder.make()
    record_environment(folder, plan.seed, dataset, training.runtime, training.precision)
    write_experiment(folder.plan("experiment"), plan)


def class_split(plan: Experiment, dataset: Dataset) -> ClassSplit:
    """What the plan's selection rule trains on and chooses by."""
    match plan.protocol.selection:
        case "validation":
            return fold_split(plan, dataset, plan.protocol.fold)
        case "last":
            return full_split(dataset)
        case "best_on_test":
            return ClassSplit(dataset, folds.train_subset(dataset), test_subset(dataset))


def _finish(training: Training) -> Scores:
    """Score the chosen epoch on the test classes; write embeddings and scores, scores last."""
    plan, folder, group = training.plan, training.folder, training.runtime.group
    if plan.protocol.selection != "last":
        _load_chosen(training)
    progress = metrics_log.count(folder.progress_log, clustering.COUNTED) if group.is_main else None
    embeddings, metrics = _score(training, progress)
    scores = _scores(training, metrics, embeddings.shape[1])
    if group.is_main:
        folder.scores.unlink(missing_ok=True)  # where they stand, their embeddings do
        dataset = training.split.dataset
        write_items(folder.items, dataset, test_subset(dataset))
        digest = write_embeddings(folder.embeddings, embeddings)
        scores = replace(scores, embeddings_sha256=digest)
        scores.write(folder.scores)
        folder.progress_log.unlink(missing_ok=True)
    return scores


def evaluate(
    plan: Experiment, folder: RunFolder, runtime: Runtime, progress: Progress | None = None
) -> Scores:
    """Score a finished run again, from its checkpoint; `progress` counts what takes long."""
    training = load_finished(plan, folder, runtime)
    embeddings, metrics = _score(training, progress)
    return _scores(training, metrics, embeddings.shape[1])


def load_finished(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Training:
    """The learner of a finished run, as it was scored.

    Raises:
        DataError: If the run is not finished, or a checkpoint is damaged or of another training,
            or the images have changed since.
    """
    dataset = load_dataset(plan)
    check_images(folder, dataset)
    plan = with_folds(plan, dataset)
    training = Training(plan, class_split(plan, dataset), folder, runtime)
    _load_chosen(training)
    return training


def _load_chosen(training: Training) -> None:
    """Load the epoch that the selection rule chose, once all epochs are done."""
    plan, folder = training.plan, training.folder
    progress = training.load(chosen_checkpoint(plan, folder))
    training.runtime.group.ask_main(lambda: check_chosen(plan, folder, progress))


def _score(
    training: Training, progress: Progress | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Embeddings (N, D) of the test images and all scores that the protocol asks for."""
    subset = test_subset(training.split.dataset)
    embeddings, metrics = training.score(subset)
    if names := training.plan.protocol.clustering_metrics:
        labels = torch.as_tensor(subset.labels)
        # On one worker: the others would do the same work again.
        metrics |= training.runtime.group.ask_main(
            lambda: clustering_scores(embeddings, labels, names, progress=progress)
        )
    return embeddings, metrics


def _zero_shot(training: Training) -> dict[str, float]:
    """Scores of the trunk's pooled features before any training, on the test classes."""
    subset = test_subset(training.split.dataset)
    features = F.normalize(training.embed(training.trunk, subset))
    task = task_of(subset)
    metrics = training.plan.protocol.retrieval_metrics(task.neighbours)
    return retrieval_scores(features, task, metrics)


def _idle(training: Training) -> str | None:
    """Say that some steps had no pair to learn from; the journal counts them."""
    if not any(WITHOUT_PAIRS in line for line in metrics_log.read(training.folder.metrics)):
        return None
    return f"some training steps had no two images of a class: {WITHOUT_PAIRS} in metrics.jsonl"


def _scores(training: Training, metrics: dict[str, float], size: int) -> Scores:
    plan, dataset, folder = training.plan, training.split.dataset, training.folder
    idle, zero_shot = training.runtime.group.ask_main(
        lambda: (_idle(training), read_zero_shot(folder.zero_shot))
    )
    subset, clustered = test_subset(dataset), plan.protocol.clustering_metrics
    return Scores(
        metrics=metrics,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        remarks=[*training.remarks, *filter(None, [idle])],
        split=plan.protocol.classes(),
        split_fingerprint=folds.fingerprint(dataset, training.split.train),
        test_classes=len(subset.classes),
        test_images=len(subset.rows),
        method=plan.method.name,
        backbone=plan.backbone.name,
        embedding_size=size,
        selection=plan.protocol.selection,
        tuned_by=plan.protocol.tuned_by,
        seed=plan.seed,
        clustering=clustering.name(training.runtime.device) if clustered else None,
        zero_shot=zero_shot,
        precision=str(training.precision),
        computed_on=computed_on(training.runtime.device),
    )
