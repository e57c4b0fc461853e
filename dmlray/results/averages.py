"""Combine several trainings of one setting into one score: means, half-widths and parts."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.unseen import test_subset
from dmlray.errors import DataError, RunError
from dmlray.file_reading import reason
from dmlray.learn import metrics_log, run
from dmlray.learn.class_split import load_dataset
from dmlray.learn.embedding_files import read_embeddings
from dmlray.learn.retrieval_task import task_of
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import (
    Member,
    all_scores,
    check_one_test_set,
    distinct,
    joint_fingerprint,
    member_of,
)
from dmlray.scores import ScorePart, Scores, half_width


def score_members(plan: Ensemble, folder: RunFolder) -> Scores:
    """Average the test scores of the finished members of `plan`; folds are also concatenated.

    Source: Musgrave et al., ECCV 2020, arXiv 2003.08505: `separated` and `concatenated`.
    Departs: their report includes the search's own run of the best trial among the repeats.

    Raises:
        RunError: If a member's results are missing or damaged.
        DataError: If the members were not scored on the same images.
    """
    members = [member_of(plan, folder, index) for index in range(plan.size)]
    _check_alike(members)
    result = average(joint(plan, [member.scores for member in members]), list(map(_part, members)))
    if plan.vary == "fold":
        dataset = load_dataset(plan.experiment)
        _check_splits(dataset, members)
        result = replace(result, concatenated=_concatenated(plan, dataset, members))
    result.write(folder.scores)
    return result


def joint(plan: Ensemble, scores: Sequence[Scores]) -> Scores:
    """Return the first member's scores with the seed and the split of the whole plan."""
    protocol = plan.experiment.protocol
    return replace(
        scores[0],
        seed=plan.experiment.seed,
        split=protocol.cut() if plan.vary == "fold" else scores[0].split,
        split_fingerprint=joint_fingerprint([part.split_fingerprint for part in scores]),
        embeddings_sha256=None,  # of one member
        verification=None,  # of one member
        no_threshold="of several trainings, each of which has its own",
        precision=distinct(part.precision for part in scores),
        computed_on=distinct(part.computed_on for part in scores),
    )


def average(shared: Scores, parts: Sequence[ScorePart]) -> Scores:
    """Return `shared` with the mean of each metric and, for two or more parts, its half-width."""
    values = {name: [part.metrics[name] for part in parts] for name in shared.metrics}
    several = len(parts) > 1
    return replace(
        shared,
        metrics={name: fmean(numbers) for name, numbers in values.items()},
        half_width={name: half_width(numbers) for name, numbers in values.items() if several},
        n=len(parts),
        parts=list(parts),
    )


def concatenated(members: Sequence[np.ndarray]) -> torch.Tensor:
    """Concatenate the unit rows (N, D) of L members and normalise: (N, L D)."""
    return F.normalize(torch.from_numpy(np.concatenate(members, axis=1)))


def _check_alike(members: Sequence[Member]) -> None:
    """Check that all members have the same test set and metrics."""
    check_one_test_set(members)
    for member in members:
        if member.scores.metrics.keys() != members[0].scores.metrics.keys():
            problem = "holds other metrics than the first member"
            remedy = "delete it and resume the run"
            raise RunError(f"{member.folder.scores}: {problem}; {remedy}")


def _check_splits(dataset: Dataset, members: Sequence[Member]) -> None:
    """Check that each member trained on the classes of its plan, with unchanged images."""
    scored = members[0].scores.dataset_fingerprint
    if not dataset.has_fingerprint(scored):
        problem = f"the members were scored on {scored}, the images are now {dataset.fingerprint}"
        allowed = "Allowed: the images that they were scored on"
        raise DataError(f"{dataset.name}: {problem}. {allowed}")
    for member in members:
        train = run.class_split(member.plan, dataset).train
        if member.scores.split_fingerprint != folds.fingerprint(dataset, train):
            problem = "are scores of other training classes than its plan has"
            remedy = "delete it and resume the run"
            raise RunError(f"{member.folder.scores}: {problem}; {remedy}")


def _concatenated(plan: Ensemble, dataset: Dataset, members: Sequence[Member]) -> dict[str, float]:
    task = task_of(test_subset(dataset))
    embeddings = concatenated([_load(member) for member in members])
    return all_scores(embeddings, task, plan.experiment.protocol)


def _load(member: Member) -> np.ndarray:
    file, scores = member.folder.embeddings, member.scores
    shape = (scores.test_images, scores.embedding_size)
    try:
        return read_embeddings(file, shape, scores.embeddings_sha256)
    except (OSError, ValueError) as error:
        remedy = "delete it and resume the run to make it again"
        raise RunError(f"{file}: is damaged ({reason(error)}); {remedy}") from None


def _part(member: Member) -> ScorePart:
    plan, scores, file = member.plan, member.scores, member.folder.metrics
    lines = metrics_log.read(file)
    whole = [line["epoch"] for line in lines] == list(range(1, plan.budget.epochs + 1))
    if not whole or not all(plan.protocol.metric in line for line in _choice(plan, lines)):
        remedy = f"delete {member.folder} and resume the run"
        raise RunError(f"{file}: is missing or damaged; {remedy}")
    line = _scored_epoch(plan, lines)
    held_out = plan.protocol.selection == "validation"
    validation = {name: line[name] for name in scores.metrics if held_out and name in line}
    return ScorePart(plan.seed, scores.split_fingerprint, line["epoch"], scores.metrics, validation)


def _choice(plan: Experiment, lines: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Lines of the metrics log from which the scored epoch was selected by its metric."""
    return [] if plan.protocol.selection == "last" else lines


def _scored_epoch(plan: Experiment, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Line of the metrics log of the scored epoch: the last, or the first with the best metric."""
    if plan.protocol.selection == "last":
        return lines[-1]
    metric = plan.protocol.metric
    return max(lines, key=lambda line: float(line[metric]))
