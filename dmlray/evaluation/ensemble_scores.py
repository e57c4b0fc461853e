"""Scores of an ensemble at every size, in one pass over the members.

The similarity of concatenated embeddings is the sum of the members' similarities, so a block of
rows grows member by member and is scored after each; nothing is concatenated.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmlray.errors import ConfigError
from dmlray.evaluation.input_checks import check_finite, check_shapes
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.metrics import STANDARD
from dmlray.evaluation.neighbours import free_memory, new_block
from dmlray.evaluation.products import Part, Similarity, grown
from dmlray.evaluation.ranking import Ranking
from dmlray.evaluation.task import RetrievalTask

Member = Tensor | np.ndarray  # (N, D), rows of length 1; a memmap is read block by block


def prefix_scores(
    members: Sequence[Member],
    task: RetrievalTask,
    metrics: Sequence[str] = STANDARD,
    *,
    weights: Sequence[float] | None = None,
    device: torch.device | str | None = None,
) -> list[dict[str, float]]:
    """Scores of the ensembles of the first 1, 2, ..., L members, as `retrieval_scores` has them.

    Source: Xuan et al., DREML, ECCV 2018, arXiv 1808.04469.
    Departs: the authors hide an image from itself by -1, which sums may undercut; here by -inf.

    Args:
        members: One (N, D) each, of any width D.
        task: As of `retrieval_scores`.
        metrics: Names of retrieval metrics.
        weights: Factor of each member's cosines, above 0, default 1; as if a member were
            multiplied by the square root of it before concatenation.
        device: Where to compute; default where the first member is.
    """
    tensors = [_tensor(member) for member in members]
    weights = [1.0] * len(tensors) if weights is None else list(weights)
    _check(tensors, task.labels, weights)
    device = torch.device(tensors[0].device if device is None else device)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    ranking = Ranking("ensemble", task.to(device), metrics)
    if device.type == "cuda" and 4 * sum(t.nbytes for t in tensors) < free_memory(device):
        tensors = [tensor.to(device) for tensor in tensors]  # once, and not for each block
    parts = [
        Part(task.of_queries(tensor), task.of_gallery(tensor), weight)
        for tensor, weight in zip(tensors, weights, strict=True)
    ]
    block = new_block(torch.empty(task.gallery_size, 0, dtype=dtype, device=device))
    sums = torch.zeros(len(parts), len(metrics), dtype=torch.float64, device=device)
    exact = _prefixes(parts, block)
    for numbers in torch.arange(task.query_count, device=device).split(len(block)):
        sums += _prefix_sums(exact, ranking, numbers, block[: len(numbers)])
    return [ranking.means(prefix) for prefix in sums]


def _prefixes(parts: list[Part], block: Tensor) -> list[Similarity]:
    """The similarities of the first 1, 2, ..., L members, computed where and as the block is."""
    found: list[Similarity] = []
    for part in parts:
        grows = grown(found[-1] if found else None, part, block.dtype)
        found.append(grows._replace(error=grows.error.to(block.device)))
    return found


def _prefix_sums(
    exact: list[Similarity], ranking: Ranking, numbers: Tensor, similarities: Tensor
) -> Tensor:
    """Sums of the metrics over the queries numbers (B,), for every prefix: (L, M)."""
    sums = []
    for index, prefix in enumerate(exact):
        part = prefix.parts[-1]
        gallery = part.gallery.to(similarities)
        rows = part.queries[numbers[0] : numbers[-1] + 1].to(similarities)
        add_product(similarities, rows, gallery, beta=float(index > 0), weight=part.weight)
        if index == 0:
            ranking.hide(similarities, numbers)  # -inf stays whatever is added
        sums.append(ranking.sums(similarities, numbers, prefix))
    return torch.stack(sums)


def _tensor(member: Member) -> Tensor:
    """A view, not a copy; torch warns that a read-only memmap must not be written to."""
    if isinstance(member, Tensor):
        return member.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(member))


def _check(members: list[Tensor], labels: Tensor, weights: list[float]) -> None:
    if not members:
        raise ConfigError("ensemble", ["0 members are not allowed. Allowed: at least 1"])
    if len(weights) != len(members) or not all(0 < w < math.inf for w in weights):
        allowed = f"one number above 0 for each of the {len(members)} members"
        raise ConfigError("ensemble weights", [f"{weights} is not allowed. Allowed: {allowed}"])
    for index, member in enumerate(members):
        check_shapes(f"ensemble member {index}", member, labels)
        check_finite(f"ensemble member {index}", member)
