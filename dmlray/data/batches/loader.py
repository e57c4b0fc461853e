"""Load the images of a subset as batches on a device."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dmlray.data.batches import samplers
from dmlray.data.batches.augment import Transform, crop_eval, crop_train, normalise
from dmlray.data.batches.samplers import Sampling
from dmlray.data.cache.image_cache import Cache
from dmlray.data.folds import Subset
from dmlray.input_statistics import InputStatistics

T = TypeVar("T")
Pair = tuple[Tensor, Tensor]  # images (B, 3, S, S), labels (B,)
Cut = Callable[[int, slice], Pair]  # (batch number, images in it) -> cropped images
AHEAD = 2  # pieces prepared per thread
EVALUATION_BATCH = 256  # images
PIECE = 32  # images per thread task, so that several threads prepare the first batch


def share(total: int, part: int, parts: int) -> slice:
    """Rows of `part` among `total`; sizes of parts differ by one at most."""
    return slice(total * part // parts, total * (part + 1) // parts)


@dataclass(frozen=True)
class Delivery:
    """Device of the batches, and which part of each batch is loaded.

    Args:
        threads: Threads that crop ahead of the loop; 0 crops in the loop.
        part, parts: Index and number of parts of every batch, see `share`; the parts in order
            make up the whole batch.
    """

    device: torch.device
    threads: int = 0
    part: int = 0
    parts: int = 1


class BatchLoader:
    """Batches of (images (B, 3, S, S) float32, labels (B,) int64) on a device.

    An epoch is a function of (seed, number) alone, independent of threads and earlier epochs.

    Args:
        statistics: Input statistics of the network, see `normalise`.
    """

    def __init__(
        self,
        cache: Cache,
        subset: Subset,
        transform: Transform,
        sampling: Sampling,
        statistics: InputStatistics,
        delivery: Delivery,
    ) -> None:
        self._cache, self._subset, self._transform = cache, subset, transform
        self._sampling, self._statistics, self._delivery = sampling, statistics, delivery

    @property
    def count(self) -> int:
        """Images in the subset."""
        return len(self._subset)

    @property
    def labels(self) -> np.ndarray:
        """Labels (N,) of the subset's images, in order."""
        return self._subset.labels

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches, equal in all epochs."""
        return len(self.plan(0))

    @property
    def images_per_batch(self) -> int:
        """Images of each training batch, over all parts."""
        return len(self.plan(0)[0])

    def steps_without_pairs(self, number: int) -> int:
        """Batches of epoch `number` without two images of a class, known before any is loaded."""
        if (self._sampling.images_per_class or 1) > 1:
            return 0
        return samplers.without_pairs(self._subset.labels, self.plan(number))

    def epoch(self, number: int) -> Iterator[Pair]:
        """Yield the training batches of epoch `number`."""

        def cut(batch: int, local: slice) -> Pair:
            # Batches count from 1: entropy [a, b] equals [a, b, 0].
            rng = np.random.default_rng([self._sampling.seed, number, batch + 1])
            rows = self._subset.rows[plan[batch]]
            views = [
                crop_train(self._cache, rows, self._transform, rng, local)
                for _ in range(self._sampling.views)
            ]
            images = views[0] if self._sampling.views == 1 else torch.stack(views, 1)
            return self._staged(images, plan[batch][local])

        plan = self.plan(number)
        local = [
            share(len(positions), self._delivery.part, self._delivery.parts) for positions in plan
        ]
        return self._delivered(cut, local)

    def evaluation(self, batch_size: int = EVALUATION_BATCH) -> Iterator[Pair]:
        """Yield all images in the subset's order, cropped at their centres.

        All parts have equal length: the last ones wrap around to the first images.
        """

        def cut(batch: int, local: slice) -> Pair:
            chosen = positions[local]
            rows = self._subset.rows[chosen]
            return self._staged(crop_eval(self._cache, rows, self._transform), chosen)

        each = -(-self.count // self._delivery.parts)
        positions = (
            np.arange(self._delivery.part * each, (self._delivery.part + 1) * each) % self.count
        )
        starts = range(0, each, batch_size)
        return self._delivered(
            cut, [slice(start, min(start + batch_size, each)) for start in starts]
        )

    def plan(self, number: int) -> list[np.ndarray]:
        """Return the positions (B,) in the subset of each batch of epoch `number`."""
        return samplers.epoch_batches(self._subset, self._sampling, number)

    def _staged(self, images: Tensor, positions: np.ndarray) -> Pair:
        labels = torch.from_numpy(self._subset.labels[positions])
        if self._delivery.device.type == "cuda":  # so that the copy overlaps the kernels
            return images.pin_memory(), labels.pin_memory()
        return images, labels

    def _delivered(self, cut: Cut, batches: Sequence[slice]) -> Iterator[Pair]:
        """Yield the batches that `cut` makes, on the device and normalised."""
        cuts = [self._pieces(images) for images in batches]
        jobs = [(batch, piece) for batch, pieces in enumerate(cuts) for piece in pieces]
        with closing(ahead(cut, jobs, self._delivery.threads)) as made:
            for pixels, labels in self._uploaded(list(islice(made, len(p))) for p in cuts):
                flat = pixels.flatten(0, -4)  # views of an image in sequence
                ready = normalise(flat, self._statistics)
                ready = ready if pixels.dim() == 4 else ready.unflatten(0, pixels.shape[:2])
                yield ready, labels

    def _pieces(self, images: slice) -> list[slice]:
        """Slices of a batch that are cropped at once: the whole batch without threads."""
        size = PIECE if self._delivery.threads else images.stop - images.start
        starts = range(images.start, images.stop, size)
        return [slice(start, min(start + size, images.stop)) for start in starts]

    def _uploaded(self, batches: Iterator[list[Pair]]) -> Iterator[Pair]:
        """Yield the batches, joined from their pieces, on the device.

        On a GPU they are copied on a separate stream, which overlaps the kernels of the previous
        step. Their memory belongs to that stream, so `record_stream` is needed: without it the
        allocator would reuse the memory for a later batch while a step still reads it.
        """
        if self._delivery.device.type != "cuda":
            yield from map(_joined, batches)
            return
        uploads, steps = (
            _upload_stream(self._delivery.device),
            torch.cuda.current_stream(self._delivery.device),
        )
        for pieces in batches:
            with torch.cuda.stream(uploads):
                batch = _joined([self._to_device(piece) for piece in pieces])
            steps.wait_stream(uploads)
            for tensor in batch:
                tensor.record_stream(steps)
            yield batch

    def _to_device(self, piece: Pair) -> Pair:
        images, labels = (tensor.to(self._delivery.device, non_blocking=True) for tensor in piece)
        return images, labels


@lru_cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    """The one upload stream of this process: torch caches freed memory per stream."""
    return torch.cuda.Stream(device)


def _joined(pieces: list[Pair]) -> Pair:
    if len(pieces) == 1:
        return pieces[0]
    images, labels = map(torch.cat, zip(*pieces, strict=True))
    return images, labels


def ahead(
    cut: Callable[[int, slice], T], jobs: Sequence[tuple[int, slice]], threads: int
) -> Generator[T, None, None]:
    """Yield `cut` of each job in order, with a few jobs started ahead."""
    if not threads:
        yield from (cut(*job) for job in jobs)
        return
    # Otherwise each thread would start its own torch threads.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    pending = deque[Future[T]]()
    try:
        for job in jobs:
            pending.append(pool.submit(cut, *job))
            if len(pending) == AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the loop ends early
        pool.shutdown(cancel_futures=True)
