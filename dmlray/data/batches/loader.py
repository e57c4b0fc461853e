"""A subset's images as batches on a device: what the training loop eats."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dmlray.data.batches import samplers
from dmlray.data.batches.augment import Transform, crop_eval, crop_train, normalise
from dmlray.data.batches.samplers import Replacement
from dmlray.data.cache.image_cache import Cache
from dmlray.data.folds import Subset

T = TypeVar("T")
Pair = tuple[Tensor, Tensor]  # images (B, 3, S, S), labels (B,)
Cut = Callable[[int, slice], Pair]  # of a batch's number, and of the images in it
AHEAD = 2  # pieces in the making per thread
EVALUATION_BATCH = 256  # images
PIECE = 32  # images that a thread cuts at once: several make the first batch together


def share(total: int, part: int, parts: int) -> slice:
    """Which of `total` rows are those of `part`; sizes of parts differ by one at most."""
    return slice(total * part // parts, total * (part + 1) // parts)


class Feed:
    """Batches of (images (B, 3, S, S) float32, labels (B,) int64) on `device`.

    An epoch is a function of (seed, number) alone: neither threads nor earlier epochs change it.

    Args:
        images_per_class: None shuffles; else each batch has this many images of each class in it.
        replacement: What such a batch may hold twice, see `samplers.per_class`.
        mean, std, scale, bgr: Of the network's input, see `normalise`.
        threads: That cut crops ahead of the loop; 0 cuts in the loop.
        views: Crops of each training image; more than one make images (B, V, 3, S, S).
        part, parts: Which of how many parts of every batch to cut, see `share`; parts in their
            order are the whole batch.
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
        part: int = 0,
        parts: int = 1,
        replacement: Replacement = "none",
    ) -> None:
        self._cache, self._subset, self._transform = cache, subset, transform
        self._batch_size, self._images_per_class = batch_size, images_per_class
        self._replacement = replacement
        self._seed, self._threads, self._device = seed, threads, device
        self._views, self._part, self._parts = views, part, parts
        self._mean, self._std, self._scale, self._bgr = mean, std, scale, bgr

    @property
    def count(self) -> int:
        """Images in the subset."""
        return len(self._subset)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._plan(0))

    @property
    def images_per_batch(self) -> int:
        """Images of each training batch, over all parts."""
        return len(self._plan(0)[0])

    def steps_without_pairs(self, number: int) -> int:
        """Batches of epoch `number` without two images of a class: known before any is cut."""
        if (self._images_per_class or 1) > 1:
            return 0
        return samplers.without_pairs(self._subset.labels, self._plan(number))

    def epoch(self, number: int) -> Iterator[Pair]:
        """Yield the training batches of epoch `number`."""

        def cut(batch: int, own: slice) -> Pair:
            # An entropy of [a, b] is that of [a, b, 0]: batches count from 1 to have their own.
            rng = np.random.default_rng([self._seed, number, batch + 1])
            rows = self._subset.rows[plan[batch]]
            views = [
                crop_train(self._cache, rows, self._transform, rng, own) for _ in range(self._views)
            ]
            images = views[0] if self._views == 1 else torch.stack(views, 1)
            return self._staged(images, plan[batch][own])

        plan = self._plan(number)
        own = [share(len(positions), self._part, self._parts) for positions in plan]
        return self._delivered(cut, own)

    def evaluation(self, batch_size: int = EVALUATION_BATCH) -> Iterator[Pair]:
        """Yield all images in the subset's order, cut at their centres.

        Of several parts each is as long: the last ones go round to the first images again.
        """

        def cut(batch: int, own: slice) -> Pair:
            chosen = positions[own]
            rows = self._subset.rows[chosen]
            return self._staged(crop_eval(self._cache, rows, self._transform), chosen)

        each = -(-self.count // self._parts)
        positions = np.arange(self._part * each, (self._part + 1) * each) % self.count
        starts = range(0, each, batch_size)
        return self._delivered(
            cut, [slice(start, min(start + batch_size, each)) for start in starts]
        )

    def _plan(self, number: int) -> list[np.ndarray]:
        """Positions (B,) in the subset of each batch of an epoch."""
        return samplers.epoch_batches(
            self._subset.labels, self._batch_size, self._images_per_class,
            self._replacement, self._seed, number,
        )  # fmt: skip

    def _staged(self, images: Tensor, positions: np.ndarray) -> Pair:
        labels = torch.from_numpy(self._subset.labels[positions])
        if self._device.type == "cuda":  # so that the copy runs beside the kernels
            return images.pin_memory(), labels.pin_memory()
        return images, labels

    def _delivered(self, cut: Cut, batches: Sequence[slice]) -> Iterator[Pair]:
        """What `cut` makes of the images of each batch, on the device and normalised."""
        cuts = [self._pieces(images) for images in batches]
        jobs = [(batch, piece) for batch, pieces in enumerate(cuts) for piece in pieces]
        with closing(ahead(cut, jobs, self._threads)) as made:
            for pixels, labels in self._uploaded(list(islice(made, len(p))) for p in cuts):
                flat = pixels.flatten(0, -4)  # views stand side by side
                ready = normalise(flat, self._mean, self._std, self._scale, self._bgr)
                ready = ready if pixels.dim() == 4 else ready.unflatten(0, pixels.shape[:2])
                yield ready, labels

    def _pieces(self, images: slice) -> list[slice]:
        """What is cut at once of a batch: all of it in the loop, less in threads."""
        size = PIECE if self._threads else images.stop - images.start
        starts = range(images.start, images.stop, size)
        return [slice(start, min(start + size, images.stop)) for start in starts]

    def _uploaded(self, batches: Iterator[list[Pair]]) -> Iterator[Pair]:
        """The batches, each of its pieces, on the device.

        A GPU is sent them on a stream of their own, beside the kernels of the step before. Their
        memory belongs to that stream, so it must hear of the one that uses it: without, it would
        hand the memory to a later batch while a step still reads it.
        """
        if self._device.type != "cuda":
            yield from map(_joined, batches)
            return
        uploads, steps = _upload_stream(self._device), torch.cuda.current_stream(self._device)
        for pieces in batches:
            with torch.cuda.stream(uploads):
                batch = _joined([self._sent(piece) for piece in pieces])
            steps.wait_stream(uploads)
            for tensor in batch:
                tensor.record_stream(steps)
            yield batch

    def _sent(self, piece: Pair) -> Pair:
        images, labels = (tensor.to(self._device, non_blocking=True) for tensor in piece)
        return images, labels


@lru_cache
def _upload_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of this process: torch keeps freed memory apart for each stream."""
    return torch.cuda.Stream(device)


def _joined(pieces: list[Pair]) -> Pair:
    if len(pieces) == 1:
        return pieces[0]
    images, labels = map(torch.cat, zip(*pieces, strict=True))
    return images, labels


def ahead(
    cut: Callable[[int, slice], T], jobs: Sequence[tuple[int, slice]], threads: int
) -> Generator[T, None, None]:
    """Yield `cut` of each job in order, a few of them begun before they are asked for."""
    if not threads:
        yield from (cut(*job) for job in jobs)
        return
    # Each thread with a team of its own for every operation would be far too many.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    begun = deque[Future[T]]()
    try:
        for job in jobs:
            begun.append(pool.submit(cut, *job))
            if len(begun) == AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:  # also when the loop has had enough
        pool.shutdown(cancel_futures=True)
