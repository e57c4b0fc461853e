"""Self-reinforced loss: each compositor becomes sure of the sub-embedding that it prefers.

B batch, M compositors, K sub-embeddings.
"""

import torch
from torch import Tensor

from dmlray.losses.cosine import at_least_float32


def self_reinforced(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (B, M, K) with their own arg-max, summed over M: a scalar, in nats.

    Between 0 and M log K. Nothing keeps all compositors from the same choice.
    Source: Zheng et al., CVPR 2021; wzzheng/DCML architectures/multifeature_resnet50.py, line 60.
    """
    log_chances = torch.log_softmax(at_least_float32(logits), dim=2)
    return -log_chances.amax(2).sum(1).mean()
