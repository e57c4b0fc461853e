"""Learner + images -> embeddings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dmlray.data.batches.loader import EVALUATION_BATCH, BatchLoader
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup


def embed(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    loader: BatchLoader,
    group: ProcessGroup = SINGLE_PROCESS,
    fixed_shape: bool = False,
) -> Tensor:
    """Apply `function` to all images of `feed`, in order, with `module` in eval mode: (N, D).

    A team's workers share the images. The result stays on the feed's device; the module's mode
    is put back. `fixed_shape` fills every batch up, for a compiled module knows one shape.
    """
    with evaluation_mode(module), torch.inference_mode():
        own = [
            function(_filled(images) if fixed_shape else images)[: len(images)]
            for images, _ in loader.evaluation()
        ]
        return group.gather(torch.cat(own))[: loader.count]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put `module` into eval mode, and back at the end."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _filled(images: Tensor) -> Tensor:
    """A whole batch: the first image again and again stands in for what lacks."""
    lacking = EVALUATION_BATCH - len(images)
    if lacking <= 0:
        return images
    return torch.cat([images, images[:1].expand(lacking, *images.shape[1:])])
