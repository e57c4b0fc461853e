"""Compute the embeddings of images with a learner."""

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
    """Apply `function` to all images of `loader`, in order, with `module` in eval mode: (N, D).

    The workers of `group` share the images. The result stays on the loader's device, and the
    module's mode is restored. `fixed_shape` pads every batch to one shape, for a compiled module.
    """
    with evaluation_mode(module), torch.inference_mode():
        own = [
            function(_padded(images) if fixed_shape else images)[: len(images)]
            for images, _ in loader.evaluation()
        ]
        return group.gather(torch.cat(own))[: loader.count]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set `module` to eval mode in the block, and restore its mode."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _padded(images: Tensor) -> Tensor:
    """Pad a batch to full size by repeating its first image."""
    lacking = EVALUATION_BATCH - len(images)
    if lacking <= 0:
        return images
    return torch.cat([images, images[:1].expand(lacking, *images.shape[1:])])
