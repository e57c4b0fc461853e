"""Self-reinforced loss: sharpen each compositor's choice of a sub-embedding.

B batch, M compositors, K sub-embeddings.
"""

import torch
from torch import Tensor

from dmlray.losses.cosine import at_least_float32


def self_reinforced(logits: Tensor) -> Tensor:
    """Cross-entropy of logits (B, M, K) with their own arg-max, summed over M: a scalar, in nats.

    Between 0 and M log K. All compositors may choose the same sub-embedding.
    Source: Zheng et al., CVPR 2021; wzzheng/DCML architectures/multifeature_resnet50.py, line 60.
    """
    log_probabilities = torch.log_softmax(at_least_float32(logits), dim=2)
    return -log_probabilities.amax(2).sum(1).mean()
