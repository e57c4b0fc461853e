"""Which members of an ensemble are worth having."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from dmlray.evaluation.incremental import Growing
from dmlray.evaluation.task import RetrievalTask

Progress = Callable[[int, int], None]


def greedy(
    members: Sequence[Tensor],
    task: RetrievalTask,
    metric: str,
    weights: Sequence[float] | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[list[int], float]:
    """Take the member that helps most, again and again, until none does; (numbers, score).

    Source: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004.
    Departs: without replacement, for taking a member twice is what `weights` say.

    Args:
        members: Unit rows (N, D) each, of images that neither trained nor test.
        task: Queries, gallery and labels of these images.
        metric: Name of the score to raise.
        weights: Factor of each member's cosines; None means 1.
        progress: Called with (members taken, all members).
    """
    weights = [1.0] * len(members) if weights is None else list(weights)
    ensemble, chosen, left = Growing(task, [metric]), list[int](), list(range(len(members)))
    best = -math.inf
    while left:
        progress(len(chosen), len(members))
        found = {i: ensemble.with_one_more(members[i], weights[i])[metric] for i in left}
        winner = max(left, key=found.__getitem__)  # of equals the first
        if found[winner] <= best:
            break
        best = ensemble.add(members[winner], weights[winner])[metric]
        chosen.append(winner)
        left.remove(winner)
    progress(len(members), len(members))
    return chosen, best
