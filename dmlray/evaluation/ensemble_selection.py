"""Which members of an ensemble are worth having."""

from collections.abc import Callable, Sequence

from torch import Tensor

from dmlray.evaluation.incremental import Growing

Progress = Callable[[int, int], None]


def greedy(
    members: Sequence[Tensor],
    labels: Tensor,
    metric: str,
    recall_at: tuple[int, ...],
    weights: Sequence[float] | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[list[int], dict[str, float]]:
    """Take the member that helps most, again and again, until none does; (numbers, scores).

    Source: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004.
    Departs: without replacement, for taking a member twice is what `weights` say.

    Args:
        members: Unit rows (N, D) each, of images that neither trained nor test.
        labels: (N,).
        metric: Name of the score to raise.
    """
    weights = [1.0] * len(members) if weights is None else list(weights)
    ensemble, chosen, left = Growing(labels, recall_at), list[int](), list(range(len(members)))
    best: dict[str, float] = {}
    while left:
        progress(len(chosen), len(members))
        found = {i: ensemble.with_one_more(members[i], weights[i])[metric] for i in left}
        winner = max(left, key=found.__getitem__)  # of equals the first
        if best and found[winner] <= best[metric]:
            break
        best = ensemble.add(members[winner], weights[winner])
        chosen.append(winner)
        left.remove(winner)
    progress(len(members), len(members))
    return chosen, best
