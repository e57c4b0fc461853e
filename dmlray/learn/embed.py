"""Learner + images -> embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmlray.data.loader import Feed


@torch.inference_mode()
def embed(module: nn.Module, function: Callable[[Tensor], Tensor], feed: Feed) -> Tensor:
    """Apply `function` to all images of `feed`, in order, with `module` in eval mode: (N, D).

    The result stays on the feed's device; the module's mode is put back.
    """
    training = module.training
    module.eval()
    try:
        return torch.cat([function(images) for images, _ in feed.evaluation()])
    finally:
        module.train(training)
