"""Split of a plan's data set into classes to train on and classes to validate on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from dmlray.data import folds
from dmlray.data.cache.broken import leave_out
from dmlray.data.cache.image_cache import find_broken
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import registry
from dmlray.data.datasets.train_test import everything
from dmlray.data.folds import Subset
from dmlray.errors import ConfigError
from dmlray.plans.experiment import FOLDS, Experiment


@dataclass(frozen=True)
class ClassSplit:
    """Classes to train on, and classes that each epoch is scored on (None: no scoring)."""

    dataset: Dataset
    train: Subset
    validation: Subset | None


Listed = dict[tuple[object, ...], Dataset]  # by all that a listing depends on
_LISTED: ContextVar[Listed | None] = ContextVar("listed", default=None)


@contextmanager
def listed_once(known: Listed | None = None) -> Iterator[None]:
    """List and hash each data set only once in the block, so that one run uses the same images.

    Args:
        known: Data sets listed before, to which the block adds; default: those of the enclosing
            block, or none.
    """
    around = _LISTED.get()
    token = _LISTED.set(known if known is not None else {} if around is None else around)
    try:
        yield
    finally:
        _LISTED.reset(token)


def load_dataset(
    plan: Experiment,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[int], None] | None = None,
) -> Dataset:
    """List the plan's data set; with `data.skip_broken` without images that cannot be decoded.

    Finding those decodes all images that are not in the cache yet. `progress` and `announce` are
    as in `open_cache`. See `listed_once`.
    """
    data, listed = plan.data, _LISTED.get()
    side = data.transform.train_short_side if data.skip_broken else None
    key = (data.name, data.root, data.split, data.skip_broken, data.max_pixels, side)
    if listed is not None and key in listed:
        return listed[key]

    def readable(dataset: Dataset) -> Dataset:
        return leave_out(dataset, find_broken(dataset, side, progress, announce, data.max_pixels))

    keep = readable if data.skip_broken else everything
    dataset = registry.load(data.name, data.root, data.split, keep)
    if listed is not None:
        listed[key] = dataset
    return dataset


def fold_split(plan: Experiment, dataset: Dataset, fold: int) -> ClassSplit:
    """Train on all folds of the training classes but one, and validate on that one."""
    return ClassSplit(dataset, *fold_subsets(plan, dataset)[fold])


def fold_subsets(plan: Experiment, dataset: Dataset) -> list[tuple[Subset, Subset]]:
    """Return (train, validation) subsets of each fold; the same for every seed of the plan."""
    protocol = plan.protocol
    return folds.split(dataset, protocol.split, protocol.fold_count, protocol.split_seed)


def with_folds(plan: Experiment, dataset: Dataset) -> Experiment:
    """Set the number of folds if the plan leaves it open: 4, or as many as can be scored.

    Raises:
        ConfigError: If the fold that the plan holds out does not exist.
    """
    protocol = plan.protocol
    if protocol.folds is not None:
        return plan
    possible = folds.suitable(dataset, protocol.split, protocol.split_seed, FOLDS)
    count = possible[-1] if possible else FOLDS
    if protocol.fold >= count:
        problem = f"{protocol.fold} does not exist: these classes make {count} folds"
        raise ConfigError("protocol.fold", [f"{problem}. Allowed: 0 to {count - 1}"])
    changed = protocol.model_copy(update={"folds": count})
    return plan.model_copy(update={"protocol": changed})


def full_split(dataset: Dataset) -> ClassSplit:
    """Train on all training classes."""
    return ClassSplit(dataset, folds.train_subset(dataset), None)
