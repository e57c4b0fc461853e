"""Several trainings of one setting -> one score: means, their spread, and what is behind them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dmlray.data.unseen import test_subset
from dmlray.errors import RunError
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import journal
from dmlray.learn.members import joint_fingerprint
from dmlray.learn.scores import Part, Scores, half_width, read_scores
from dmlray.learn.training import load_dataset
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder


def score_members(plan: Ensemble, folder: RunFolder) -> Scores:
    """Score the finished members of `plan` on the test classes one by one, and folds also as one.

    Source: Musgrave et al., ECCV 2020, arXiv 2003.08505: `separated` and `concatenated`.
    Departs: their report counts the search's own run of the winner among the repeats.

    Raises:
        RunError: If a member's results are missing or damaged.
    """
    members = [folder.member(index) for index in range(plan.size)]
    scores = [read_scores(member.scores) for member in members]
    parts = [
        _part(plan.member(index), member, part)
        for index, (member, part) in enumerate(zip(members, scores, strict=True))
    ]
    result = average(joint(plan, scores), parts)
    if plan.vary == "fold":
        result = replace(result, concatenated=_concatenated(plan, members))
    result.write(folder.scores)
    return result


def joint(plan: Ensemble, scores: Sequence[Scores]) -> Scores:
    """What all members share: the first one's, with the seed and the split of the whole."""
    protocol = plan.experiment.protocol
    return replace(
        scores[0],
        seed=plan.experiment.seed,
        split=protocol.cut() if plan.vary == "fold" else scores[0].split,
        split_fingerprint=joint_fingerprint([part.split_fingerprint for part in scores]),
    )


def average(shared: Scores, parts: Sequence[Part]) -> Scores:
    """`shared` with the mean of each metric and, of two parts or more, its half-width."""
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
    """Rows of length 1 of all members (N, D) side by side, of length 1 again: (N, L D)."""
    return F.normalize(torch.from_numpy(np.concatenate(members, axis=1)))


def _concatenated(plan: Ensemble, members: Sequence[RunFolder]) -> dict[str, float]:
    labels = torch.as_tensor(test_subset(load_dataset(plan.experiment)).labels)
    embeddings = concatenated([_load(member.embeddings) for member in members])
    return retrieval_scores(embeddings, labels, plan.experiment.protocol.depths(len(labels)))


def _load(path: Path) -> np.ndarray:
    try:
        rows: np.ndarray = np.load(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: is damaged ({error}); --resume the run to make it again") from None
    return rows


def _part(plan: Experiment, member: RunFolder, scores: Scores) -> Part:
    lines = journal.read(member.metrics)
    if [line["epoch"] for line in lines] != list(range(1, plan.budget.epochs + 1)):
        raise RunError(f"{member.metrics}: is missing or damaged; delete {member} and --resume")
    line = _scored_epoch(plan, lines)
    held_out = plan.protocol.selection == "validation"
    validation = {name: line[name] for name in scores.metrics if held_out and name in line}
    return Part(plan.seed, scores.split_fingerprint, line["epoch"], scores.metrics, validation)


def _scored_epoch(plan: Experiment, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The journal's line of the epoch that was scored: the last one, or the first best one."""
    if plan.protocol.selection == "last":
        return lines[-1]
    metric = plan.protocol.metric
    return max(lines, key=lambda line: float(line[metric]))
