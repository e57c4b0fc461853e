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
from dmlray.evaluation.input_checks import check_depths, check_finite, check_pairs, check_shapes
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.neighbours import free_memory, hide_self, new_block
from dmlray.evaluation.products import Part, Similarity, grown
from dmlray.evaluation.ranking import SelfRetrieval
from dmlray.evaluation.retrieval import RECALL_AT

Member = Tensor | np.ndarray  # (N, D), rows of length 1; a memmap is read block by block


def prefix_scores(
    members: Sequence[Member],
    labels: Tensor,
    recall_at: Sequence[int] = RECALL_AT,
    *,
    weights: Sequence[float] | None = None,
    device: torch.device | str | None = None,
) -> list[dict[str, float]]:
    """Scores of the ensembles of the first 1, 2, ..., L members, as `retrieval_scores` has them.

    Source: Xuan et al., DREML, ECCV 2018, arXiv 1808.04469.
    Departs: the authors hide an image from itself by -1, which sums may undercut; here by -inf.

    Args:
        members: One (N, D) each, of any width D.
        labels: (N,).
        recall_at: The K of R@K, each from 1 to N - 1.
        weights: Factor of each member's cosines, above 0, default 1; as if a member were
            multiplied by the square root of it before concatenation.
        device: Where to compute; default where the first member is.
    """
    tensors = [_tensor(member) for member in members]
    weights = [1.0] * len(tensors) if weights is None else list(weights)
    _check(tensors, labels, recall_at, weights)
    device = torch.device(tensors[0].device if device is None else device)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    scores = SelfRetrieval(labels.to(device), recall_at)
    if device.type == "cuda" and 4 * sum(t.nbytes for t in tensors) < free_memory(device):
        tensors = [tensor.to(device) for tensor in tensors]  # once, and not for each block
    block = new_block(torch.empty(len(labels), 0, dtype=dtype, device=device))
    sums = torch.zeros(len(tensors), len(recall_at) + 2, dtype=torch.float64, device=device)
    exact = _prefixes(tensors, weights, block)
    for numbers in torch.arange(len(labels), device=device).split(len(block)):
        sums += _prefix_sums(exact, scores, numbers, block[: len(numbers)])
    return [scores.means(prefix) for prefix in sums]


def _prefixes(members: list[Tensor], weights: list[float], block: Tensor) -> list[Similarity]:
    """The similarities of the first 1, 2, ..., L members, computed where and as the block is."""
    found: list[Similarity] = []
    for member, weight in zip(members, weights, strict=True):
        part = Part(member, member, weight)
        grows = grown(found[-1] if found else None, part, block.dtype)
        found.append(grows._replace(error=grows.error.to(block.device)))
    return found


def _prefix_sums(
    exact: list[Similarity], scores: SelfRetrieval, numbers: Tensor, similarities: Tensor
) -> Tensor:
    """Sums of the metrics over the queries numbers (B,), for every prefix: (L, M)."""
    sums = []
    for index, prefix in enumerate(exact):
        gallery, weight = prefix.parts[-1].gallery.to(similarities), prefix.parts[-1].weight
        rows = gallery[numbers[0] : numbers[-1] + 1]
        add_product(similarities, rows, gallery, beta=float(index > 0), weight=weight)
        if index == 0:
            hide_self(similarities, numbers)  # -inf stays whatever is added
        sums.append(scores.sums(similarities, numbers, prefix))
    return torch.stack(sums)


def _tensor(member: Member) -> Tensor:
    """A view, not a copy; torch warns that a read-only memmap must not be written to."""
    if isinstance(member, Tensor):
        return member.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(member))


def _check(
    members: list[Tensor], labels: Tensor, recall_at: Sequence[int], weights: list[float]
) -> None:
    if not members:
        raise ConfigError("ensemble", ["0 members are not allowed. Allowed: at least 1"])
    if len(weights) != len(members) or not all(0 < w < math.inf for w in weights):
        allowed = f"one number above 0 for each of the {len(members)} members"
        raise ConfigError("ensemble weights", [f"{weights} is not allowed. Allowed: {allowed}"])
    for index, member in enumerate(members):
        check_shapes(f"ensemble member {index}", member, labels)
        check_finite(f"ensemble member {index}", member)
    check_pairs("ensemble", labels)
    check_depths("recall_at", recall_at, len(labels) - 1)
