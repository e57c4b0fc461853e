"""Run one training from its plan to its scores on the test classes. Needs no Ray."""

import time
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch

from dmlray.atomic_files import write_json
from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.unseen import test_subset
from dmlray.errors import DataError, RunError
from dmlray.evaluation import clustering
from dmlray.evaluation.clustering import Progress, clustering_scores
from dmlray.learn import metrics_log
from dmlray.learn.batch_checks import check_batchnorm
from dmlray.learn.chosen_epoch import check_chosen, chosen_checkpoint
from dmlray.learn.class_split import ClassSplit, fold_split, full_split, load_dataset, with_folds
from dmlray.learn.embedding_files import write_embeddings, write_items
from dmlray.learn.environment import check_images, computed_on, record_environment
from dmlray.learn.held_out import held_out_embeddings, no_threshold, verified
from dmlray.learn.loop import Report
from dmlray.learn.process_group import ProcessGroup
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
    """Train `plan`, call `report` with each epoch, and score the test classes.

    Resumes from the folder's last checkpoint; the scores of a finished folder are only read.
    """
    group, started = runtime.group, time.monotonic()
    if finished := group.ask_main(lambda: _recorded(plan, folder)):
        return parse_scores(finished)
    dataset = load_dataset(plan)
    _check_equal_images(dataset, group)
    plan = with_folds(plan, dataset)
    keep_best = plan.protocol.selection != "last"
    training = Training(plan, class_split(plan, dataset), folder, runtime, keep_best)
    if plan.trains:
        _train(training, report, with_zero_shot)
    elif not training.resumed:
        group.ask_main(lambda: _record(training))
        training.save_untrained()
    scores = _finish(training)
    if group.is_main:  # of this session: what a killed one has spent is not known
        seconds = round(time.monotonic() - started, 3)
        write_json(folder.cost, {"seconds": seconds, "devices": group.size})
    return scores


def _train(training: Training, report: Report, with_zero_shot: bool) -> None:
    plan, folder, group = training.plan, training.folder, training.runtime.group
    if group.size > 1 and training.runtime.device.type == "cpu":  # GPUs normalise a batch together
        check_batchnorm(plan, [training.split.train], training.trunk, group.size)
    group.ask_main(lambda: _record(training))
    tested = test_subset(training.split.dataset)
    if with_zero_shot and tested and not training.resumed:
        zero_shot = training.retrieval(training.pooled(tested), tested)
        if group.is_main:
            write_json(folder.zero_shot, zero_shot)
    with closing(training.epochs()) as epochs:
        for epoch in epochs:
            report(epoch)


def scores_of(folder: RunFolder, plan: Experiment) -> Scores:
    """Read the scores of the finished training of `plan` in `folder`.

    Raises:
        RunError: If they are missing, damaged or of another run.
    """
    scores = read_scores(folder.scores)
    recorded = f"{scores.method}, seed {scores.seed}"
    expected = f"{plan.scored_as}, seed {plan.seed}"
    if recorded != expected:
        problem = f"are scores of another run ({recorded}), its plan is {expected}"
        raise RunError(f"{folder.scores}: {problem}; delete it and resume the run")
    return scores


def _recorded(plan: Experiment, folder: RunFolder) -> dict[str, Any] | None:
    """Return the scores of a finished folder, None if it is not finished."""
    if folder.scores.exists():
        scores = scores_of(folder, plan)
        there = (folder.embeddings.exists() or not scores.test_classes) and (
            scores.verification is None or folder.validation_embeddings.exists()
        )
        if there or not folder.last_checkpoint.exists():
            return asdict(scores)  # else the embeddings are computed again
    read_zero_shot(folder.zero_shot)  # find damage before training
    return None


def _check_equal_images(dataset: Dataset, group: ProcessGroup) -> None:
    """Refuse workers that see different images, as on a shared disk that is not up to date."""
    fingerprints = sorted(set(group.gather_json(dataset.fingerprint)))
    if len(fingerprints) > 1:
        problem = "the nodes of this training find different images there"
        raise DataError(f"{dataset.root}: {problem} (fingerprints {', '.join(fingerprints)})")


def _record(training: Training) -> None:
    plan, folder, dataset = training.plan, training.folder, training.split.dataset
    folder.make()
    record_environment(folder, plan.seed, dataset, training.runtime, training.precision)
    write_experiment(folder.plan("experiment"), plan)


def class_split(plan: Experiment, dataset: Dataset) -> ClassSplit:
    """Return the classes that the plan's selection rule trains on and chooses epochs by."""
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
    if plan.protocol.selection != "last" or not plan.trains:
        _load_chosen(training)
    progress = metrics_log.count(folder.progress_log, clustering.COUNTED) if group.is_main else None
    embeddings, metrics = _score(training, progress)
    held_out = held_out_embeddings(training)
    scores = _scores(training, metrics, embeddings, held_out)
    if group.is_main:
        folder.scores.unlink(missing_ok=True)  # scores must never exist without their embeddings
        if metrics:
            dataset = training.split.dataset
            write_items(folder.items, dataset, test_subset(dataset))
            digest = write_embeddings(folder.embeddings, embeddings)
            scores = replace(scores, embeddings_sha256=digest)
        if held_out is not None and scores.verification:
            digest = write_embeddings(folder.validation_embeddings, held_out)
            verification = replace(scores.verification, embeddings_sha256=digest)
            scores = replace(scores, verification=verification)
        scores.write(folder.scores)
        folder.progress_log.unlink(missing_ok=True)
    return scores


def evaluate(
    plan: Experiment, folder: RunFolder, runtime: Runtime, progress: Progress | None = None
) -> Scores:
    """Score a finished run again, from its checkpoint; `progress` reports long computations."""
    training = load_finished(plan, folder, runtime)
    embeddings, metrics = _score(training, progress)
    return _scores(training, metrics, embeddings, held_out_embeddings(training))


def load_finished(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Training:
    """Load the learner of a finished run, as it was scored.

    Raises:
        DataError: If the run is not finished, a checkpoint is damaged or of another training, or
            the images have changed.
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
    """Return embeddings (N, D) of the test images and all scores of the protocol.

    Without test classes these are no scores, and embeddings of one training image for their size.
    """
    subset = test_subset(training.split.dataset)
    if not subset:
        return training.embeddings(training.split.train.first(1)), {}
    embeddings, metrics = training.score(subset)
    if names := training.plan.protocol.clustering_metrics:
        labels = torch.as_tensor(subset.labels)
        # On the main worker only: the result is the same on all.
        metrics |= training.runtime.group.ask_main(
            lambda: clustering_scores(embeddings, labels, names, progress=progress)
        )
    return embeddings, metrics


def _idle(training: Training) -> str | None:
    """Return a remark if some steps had no pairs, which the metrics log counts."""
    if not any(WITHOUT_PAIRS in line for line in metrics_log.read(training.folder.metrics)):
        return None
    return f"some training steps had no two images of a class: {WITHOUT_PAIRS} in metrics.jsonl"


def _scores(
    training: Training,
    metrics: dict[str, float],
    embeddings: torch.Tensor,
    held_out: torch.Tensor | None,
) -> Scores:
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
        method=plan.scored_as,
        backbone=plan.backbone.name,
        embedding_size=embeddings.shape[1],
        selection=plan.protocol.selection if plan.trains else "none",
        tuned_by=plan.protocol.tuned_by,
        seed=plan.seed,
        clustering=clustering.name(training.runtime.device) if clustered and metrics else None,
        zero_shot=zero_shot,
        precision=str(training.precision),
        computed_on=computed_on(training.runtime.device),
        verification=verified(training, held_out, embeddings),
        no_threshold=no_threshold(training),
    )
