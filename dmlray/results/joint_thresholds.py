"""Thresholds of an ensemble or a merge, from the embeddings of classes that all held out."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dmlray.data.folds import Subset
from dmlray.evaluation.comparisons import Comparisons
from dmlray.evaluation.pca import Projection
from dmlray.evaluation.task import RetrievalTask
from dmlray.evaluation.verification import Verification, verify
from dmlray.learn.class_split import fold_split, load_dataset
from dmlray.learn.retrieval_task import task_of
from dmlray.results.finished_runs import Member
from dmlray.scores import Scores, why_no_threshold


def with_thresholds(
    scores: Scores,
    members: Sequence[Member],
    task: RetrievalTask,
    device: torch.device,
    projected: tuple[Projection, Tensor] | None = None,
) -> Scores:
    """Add the thresholds of members side by side, or why there are none, to their scores.

    Args:
        scores: Of the ensemble.
        members: Whose weights are the factors of their cosines.
        task: Of the test images.
        device: Where to compute.
        projected: The projection of the members' embeddings, and its unit rows of the test images.
    """
    if reason := _obstacle(members):
        return replace(scores, verification=None, no_threshold=reason)
    found = _verified(members, task, device, projected)
    return replace(scores, verification=found, no_threshold="")


def validation_subset(member: Member) -> Subset:
    """The training images that a member held out."""
    split = fold_split(member.plan, load_dataset(member.plan), member.plan.protocol.fold)
    assert split.validation is not None
    return split.validation


def _obstacle(members: Sequence[Member]) -> str:
    """Why there is no class that chooses a threshold of all members; empty if there are some."""
    for member in members:
        if member.scores.verification is None:
            return f"a member has no threshold: {why_no_threshold(member.scores)}"
        if not (file := member.folder.validation_embeddings).exists():
            return f"{file.name} of a member is missing; resume that run to make it again"
    if len({member.scores.split_fingerprint for member in members}) > 1:
        return "members held out different classes, so that no class was held out by all of them"
    return ""


def _verified(
    members: Sequence[Member],
    task: RetrievalTask,
    device: torch.device,
    projected: tuple[Projection, Tensor] | None,
) -> Verification:
    rows = [found for one in members if (found := one.validation_embeddings()) is not None]
    held_out = task_of(validation_subset(members[0]))
    weights = [member.weight for member in members]
    if projected:
        projection, test = projected
        side_by_side = [row * weight**0.5 for row, weight in zip(rows, weights, strict=True)]
        return verify(
            Comparisons([projection(side_by_side)], held_out, device=device),
            Comparisons([test], task, device=device),
        )
    test_rows = [member.embeddings() for member in members]
    return verify(
        Comparisons(rows, held_out, weights, device), Comparisons(test_rows, task, weights, device)
    )
