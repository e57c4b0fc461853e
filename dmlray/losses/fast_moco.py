"""DiVA's self-similarity: contrast two views of an image with a queue of earlier images.

B batch, Q size of the queue, D embedding. All rows have unit length.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dmlray.losses.cosine import at_least_float32

_FLOOR = math.log(1e-45)  # lower bound of log weights, nats, as in the authors' code
_NEAREST, _FARTHEST, _ANTIPODE = 0.5, 1.4, 2 - 1e-4  # distances, unitless


def fast_moco(
    queries: Tensor, keys: Tensor, queue: Tensor, filled: Tensor, temperature: float, fixed: bool
) -> Tensor:
    """Cross-entropy of queries and keys (B, D) against a queue (Q, D): a scalar, in nats.

    Source: Milbich et al., ECCV 2020, arXiv 2004.13458; wzzheng/DCML criteria/fast_moco.py.
    Departs: entries of the queue that are not `filled` (Q,) are ignored.
    """
    queries, keys, queue = map(at_least_float32, (queries, keys, queue))
    with torch.autocast(queries.device.type, enabled=False):
        cosines = queries @ queue.T  # (B, Q)
        weights = queue_weights(cosines.detach(), queries.shape[1], filled, fixed)
        against = (cosines * weights).masked_fill(~filled, -torch.inf)
        own = (queries * keys).sum(1, keepdim=True)  # (B, 1)
        logits = torch.cat([own, against], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


def queue_weights(cosines: Tensor, dim: int, filled: Tensor, fixed: bool) -> Tensor:
    """Weight of each entry of the queue for each query, from cosines (B, Q): (B, Q).

    The inverse density of its distance on a sphere in D = `dim` dimensions, nearly 0 beyond 1.4.
    `fixed` normalises per query, as DiVA does since September 2021; otherwise per entry over the
    batch, as DCML does.
    Departs: by a softmax of logarithms, so that no weight underflows in float32.
    """
    distances = (2 - 2 * cosines).clamp(min=0).sqrt().clamp(_NEAREST, _ANTIPODE)
    logs = inverse_density(distances, dim).masked_fill(~filled, -torch.inf)
    largest = logs.amax(1, keepdim=True) if fixed else logs.amax()
    floored = (logs - largest).masked_fill(distances > _FARTHEST, -torch.inf).clamp(min=_FLOOR)
    weights = floored.masked_fill(~filled, -torch.inf).softmax(1 if fixed else 0)
    return weights.masked_fill(~filled, 0)  # a row or column without filled entries is NaN


def inverse_density(distances: Tensor, dim: int) -> Tensor:
    """Negative log density of distances in (0, 2) between points on a sphere, up to a constant.

    Source: Wu et al., ICCV 2017, arXiv 1706.07567, section 3.
    """
    return (2 - dim) * distances.log() - (dim - 3) / 2 * (-(distances**2) / 4).log1p()
