"""A subset's images as batches on a device: what the training loop eats."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dmlray.data import samplers
from dmlray.data.augment import Transform, crop_eval, crop_train, normalise
from dmlray.data.cache import Cache
from dmlray.data.folds import Subset

Job = TypeVar("Job")
Pair = tuple[Tensor, Tensor]  # images (B, 3, S, S), labels (B,)
AHEAD = 2  # batches in the making per thread


class Feed:
    """Batches of (images (B, 3, S, S) float32, labels (B,) int64) on `device`.

    An epoch is a function of (seed, number) alone: neither threads nor earlier epochs change it.

    Args:
        images_per_class: None shuffles; else each batch has this many images of each class in it.
        mean, std, scale, bgr: Of the network's input, see `normalise`.
        threads: That cut crops ahead of the loop; 0 cuts in the loop.
        views: Crops of each training image; more than one make images (B, V, 3, S, S).
    """

    def __init__(
        self,
        cache: Cache,
        subset: Subset,
        transform: Transform,
        batch_size: int,
        images_per_class: int | None,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float,
        bgr: bool,
        device: torch.device,
        threads: int = 0,
        views: int = 1,
    ) -> None:
        self._cache, self._subset, self._transform = cache, subset, transform
        self._batch_size, self._images_per_class = batch_size, images_per_class
        self._seed, self._threads, self._device = seed, threads, device
        self._views = views
        self._mean, self._std, self._scale, self._bgr = mean, std, scale, bgr

    @property
    def batches_per_epoch(self) -> int:
        return len(self._plan(0))

    def epoch(self, number: int) -> Iterator[Pair]:
        """Yield the training batches of epoch `number`."""

        def cut(job: tuple[int, np.ndarray]) -> Pair:
            batch, positions = job
            # An entropy of [a, b] is that of [a, b, 0]: batches count from 1 to have their own.
            rng = np.random.default_rng([self._seed, number, batch])
            rows = self._subset.rows[positions]
            views = [
                crop_train(self._cache, rows, self._transform, rng) for _ in range(self._views)
            ]
            return self._staged(views[0] if self._views == 1 else torch.stack(views, 1), positions)

        return self._delivered(cut, list(enumerate(self._plan(number), start=1)))

    def evaluation(self, batch_size: int = 256) -> Iterator[Pair]:
        """Yield all images in the subset's order, cut at their centres."""

        def cut(positions: np.ndarray) -> Pair:
            rows = self._subset.rows[positions]
            return self._staged(crop_eval(self._cache, rows, self._transform), positions)

        count = len(self._subset)
        starts = range(0, count, batch_size)
        jobs = [np.arange(start, min(start + batch_size, count)) for start in starts]
        return self._delivered(cut, jobs)

    def _plan(self, number: int) -> list[np.ndarray]:
        """Positions (B,) in the subset of each batch of an epoch."""
        rng = np.random.default_rng([self._seed, number])
        if self._images_per_class is None:
            return samplers.shuffled(len(self._subset), self._batch_size, rng)
        return samplers.per_class(
            self._subset.labels, self._batch_size, self._images_per_class, rng
        )

    def _staged(self, images: Tensor, positions: np.ndarray) -> Pair:
        labels = torch.from_numpy(self._subset.labels[positions])
        if self._device.type == "cuda":  # so that the copy runs beside the kernels
            return images.pin_memory(), labels.pin_memory()
        return images, labels

    def _delivered(self, cut: Callable[[Job], Pair], jobs: Sequence[Job]) -> Iterator[Pair]:
        with closing(_ahead(cut, jobs, self._threads)) as batches:
            for images, labels in batches:
                pixels = images.to(self._device, non_blocking=True)
                flat = pixels.flatten(0, -4)  # views stand side by side
                ready = normalise(flat, self._mean, self._std, self._scale, self._bgr)
                ready = ready if pixels.dim() == 4 else ready.unflatten(0, pixels.shape[:2])
                yield ready, labels.to(self._device, non_blocking=True)


def _ahead(
    cut: Callable[[Job], Pair], jobs: Sequence[Job], threads: int
) -> Generator[Pair, None, None]:
    """Yield `cut` of each job in order, a few of them begun before they are asked for."""
    if not threads:
        yield from map(cut, jobs)
        return
    pool, begun = ThreadPoolExecutor(threads), deque[Future[Pair]]()
    try:
        for job in jobs:
            begun.append(pool.submit(cut, job))
            if len(begun) == AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:  # also when the loop has had enough
        pool.shutdown(cancel_futures=True)
