"""Learner + images -> embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmlray.data.loader import Feed
from dmlray.learn.team import ALONE, Team


@torch.inference_mode()
def embed(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    feed: Feed,
    team: Team = ALONE,
) -> Tensor:
    """Apply `function` to all images of `feed`, in order, with `module` in eval mode: (N, D).

    A team's workers share the images. The result stays on the feed's device; the module's mode
    is put back.
    """
    training = module.training
    module.eval()
    try:
        own = torch.cat([function(images) for images, _ in feed.evaluation()])
        return team.gather(own)[: feed.count]
    finally:
        module.train(training)
