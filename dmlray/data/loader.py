"""Batches of a subset, epoch by epoch, as a pure function of (seed, epoch)."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from dmlray.data.augment import Transform, crop_eval, crop_train, normalise
from dmlray.data.cache import Cache
from dmlray.data.folds import Subset
from dmlray.data.samplers import per_class, shuffled

Pair = tuple[Tensor, Tensor]


class Feed:
    """Images and labels of `subset`, normalised as a network wants them, on `device`.

    mean, std, scale, bgr: see `normalise`. `threads` prepare batches ahead; they change no number.
    """

    def __init__(
        self,
        cache: Cache,
        subset: Subset,
        transform: Transform,
        batch_size: int,
        images_per_class: int | None,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        scale: float,
        bgr: bool,
        device: torch.device,
        threads: int = 0,
    ) -> None:
        self.cache, self.subset, self.transform = cache, subset, transform
        self.batch_size, self.images_per_class, self.seed = batch_size, images_per_class, seed
        self.statistics = (mean, std, scale, bgr)
        self.device, self.threads = device, threads

    @property
    def batches_per_epoch(self) -> int:
        return max(1, len(self.subset.rows) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Pair]:
        """Augmented images (B, 3, S, S) and labels (B,) of the 0-based epoch `number`."""
        rng = np.random.default_rng([self.seed, number])
        labels, each = self.subset.labels, self.images_per_class
        batches = (
            per_class(labels, self.batch_size, each, rng)
            if each
            else shuffled(len(labels), self.batch_size, rng)
        )

        def prepare(index: int) -> Tensor:
            own = np.random.default_rng([self.seed, number, index])
            rows = self.subset.rows[batches[index]]
            return crop_train(self.cache, rows, self.transform, own)

        yield from self._deliver(prepare, batches)

    def evaluation(self, batch_size: int = 256) -> Iterator[Pair]:
        """All images in order, without augmentation."""
        positions = np.arange(len(self.subset.rows))
        batches = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]

        def prepare(index: int) -> Tensor:
            return crop_eval(self.cache, self.subset.rows[batches[index]], self.transform)

        yield from self._deliver(prepare, batches)

    def _deliver(
        self, prepare: Callable[[int], Tensor], batches: list[np.ndarray]
    ) -> Iterator[Pair]:
        for index, images in enumerate(self._ahead(prepare, len(batches))):
            labels = torch.from_numpy(self.subset.labels[batches[index]])
            if self.device.type == "cuda":
                images, labels = images.pin_memory(), labels.pin_memory()
            moved = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            yield normalise(moved, *self.statistics), labels.to(self.device, non_blocking=True)

    def _ahead(self, prepare: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
        """prepare(0), prepare(1), ... in order, a bounded number of them ahead of use."""
        if not self.threads:
            yield from map(prepare, range(count))
            return
        window: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(self.threads)
        try:
            for index in range(count):
                window.append(pool.submit(prepare, index))
                if len(window) > 2 * self.threads:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
