"""Checks of a plan's batches, from labels alone, before anything runs."""

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import islice

import numpy as np
import torch

from dmlray.backbones import Trunk
from dmlray.data.batches import samplers
from dmlray.data.folds import Subset
from dmlray.errors import ConfigError
from dmlray.methods import LibraryLoss, needs_pairs
from dmlray.plans.experiment import Experiment

_logger = logging.getLogger(__name__)

Sizes = tuple[int, ...]  # images of each class in a batch
_MOST_BATCHES, _MOST_PATTERNS = 2000, 50  # drawn, and passed to the loss
_MOST_IMAGES = 16  # of a class, in a batch passed to the loss


def problems(plan: Experiment, parts: Sequence[Subset]) -> list[ConfigError]:
    """Return all problems of the batches of the subsets that the plan trains on.

    Warns of steps without pairs if the method needs pairs.
    """
    found: list[ConfigError] = []
    for check in (_check_classes, _check_categories, _check_workers, _check_pairs, _check_loss):
        try:
            for train in sorted(parts, key=lambda part: len(part.classes)):
                check(plan, train)
        except ConfigError as error:  # two checks may draw batches
            found += [error] if str(error) not in map(str, found) else []
    if not found:
        _warn_of_idle_steps(plan, parts)
    return found


def _check_classes(plan: Experiment, train: Subset) -> None:
    size, each, classes = plan.data.batch_size, plan.data.images_per_class, len(train.classes)
    if each and _too_few_classes(plan, train):
        needs = f"{size} images, {each} of each class, need {size // each} classes"
        allowed = f"Allowed: at most {classes * each}"
        raise ConfigError("data.batch_size", [f"{needs}, but there are {classes}. {allowed}"])


def _check_categories(plan: Experiment, train: Subset) -> None:
    if plan.data.categories:
        samplers.class_categories(train)


def _too_few_classes(plan: Experiment, train: Subset) -> bool:
    size, each = plan.data.batch_size, plan.data.images_per_class
    without = plan.data.replacement != "classes"
    return bool(each and without and size // each > len(train.classes))


def _check_workers(plan: Experiment, train: Subset) -> None:
    images, workers = _images_per_step(plan, train), plan.budget.workers
    if images < workers:
        problem = f"{workers} are more than the {images} images of the only batch"
        raise ConfigError("budget.workers", [f"{problem}. Allowed: at most {images}"])


def _images_per_step(plan: Experiment, train: Subset) -> int:
    """Return the size of the smallest batch; a short one is drawn only if it is the only one."""
    size = plan.data.batch_size
    return size if plan.data.images_per_class else min(size, len(train))


def check_batchnorm(
    plan: Experiment, parts: Sequence[Subset], trunk: Trunk, devices: int = 1
) -> None:
    """Refuse one image per device where BatchNorm would get one value per channel.

    Args:
        plan: Experiment with its batch size.
        parts: Training images of each fold.
        trunk: Network that may contain BatchNorm.
        devices: Number of devices that normalise their parts of a batch separately.

    Raises:
        ConfigError: If the network cannot be trained on the plan's smallest batch.
    """
    images = min(_images_per_step(plan, train) for train in parts) // devices
    if images > 1 or plan.backbone.batchnorm != "train":
        return
    size = plan.data.transform.size
    try:
        with torch.no_grad():
            deepcopy(trunk).train()(torch.zeros(1, 3, size, size))
    except ValueError as error:  # from BatchNorm
        problem = f"one image per device is too few for BatchNorm ({error})"
        allowed = (
            "Allowed: at least 2 per device, backbone.batchnorm=frozen_statistics or frozen, or a "
            "larger data.transform.size"
        )
        raise ConfigError("data.batch_size", [f"{problem}. {allowed}"]) from None


def _check_pairs(plan: Experiment, train: Subset) -> None:
    """Refuse a method that needs pairs if no batch can have one."""
    data = plan.data
    if needs_pairs(plan.method.config) and not samplers.can_pair(
        train.labels, data.batch_size, data.images_per_class, data.replacement
    ):
        raise ConfigError(*_no_pair(plan, train))


def _warn_of_idle_steps(plan: Experiment, parts: Sequence[Subset]) -> None:
    """Warn of the steps without pairs if the method needs pairs."""
    if not needs_pairs(plan.method.config) or (plan.data.images_per_class or 1) > 1:
        return
    epochs = [(train, _epoch(plan, train, 0)) for train in parts]
    idle = [(samplers.without_pairs(train.labels, epoch), len(epoch)) for train, epoch in epochs]
    if max(idle)[0]:
        _logger.warning(
            "data.images_per_class: %d of %d steps of the first epoch have no two images of a "
            "class, which %s needs; with 2 every step has some",
            *max(idle),
            plan.method.name,
        )


def _no_pair(plan: Experiment, train: Subset) -> tuple[str, list[str]]:
    needs = f"{plan.method.name} needs two images of a class in a batch"
    if plan.data.batch_size == 1:
        return "data.batch_size", [f"{needs}, but 1 is too few. Allowed: at least 2"]
    if plan.data.images_per_class == 1:
        return "data.images_per_class", [f"{needs}, but 1 is too few. Allowed: null or at least 2"]
    problem = f"each of the {len(train.classes)} classes to train on has one image"
    allowed = "Allowed: classes of 2 images or more, or a method with proxies, as proxy_anchor"
    return "method.name", [f"{needs}, but {problem}. {allowed}"]


def _check_loss(plan: Experiment, train: Subset) -> None:
    """Try a library's loss on batches as they will be drawn, and on equal images if they can occur.

    Raises:
        ConfigError: With the library's message and the setting that fixes it.
    """
    config = plan.method.config
    if not isinstance(config, LibraryLoss) or _too_few_classes(plan, train):
        return
    patterns = sorted({_pattern(train.labels[batch]) for batch in _batches(plan, train)})
    for sizes in patterns[:_MOST_PATTERNS]:
        if problem := config.attempt(_labels(sizes)):
            text = f"{config.names} fails on {_description(sizes)}: {problem.rstrip('.')}"
            raise ConfigError("method.loss", [f"{text}. Allowed: {_remedy(plan, train, config)}"])
    if _repeats_images(plan, train) and (problem := config.attempt(_labels((2, 2)), equal=True)):
        text = f"{config.names} fails on equal images of a class: {problem.rstrip('.')}"
        why = f"data.images_per_class={plan.data.images_per_class} repeats images in a batch"
        allowed = (
            "Allowed: as many images in each class, random crops "
            "(data.transform.crop=random_resized), or another loss"
        )
        raise ConfigError("method.loss", [f"{text}; {why}. {allowed}"])


def _batches(plan: Experiment, train: Subset) -> Iterator[np.ndarray]:
    """Yield the first batches of the training; one epoch if all have the same class sizes."""
    same = plan.data.images_per_class and plan.data.replacement != "classes"
    epochs = range(1 if same else plan.budget.epochs)
    batches = (batch for epoch in epochs for batch in _epoch(plan, train, epoch))
    return islice(batches, _MOST_BATCHES)


def _epoch(plan: Experiment, train: Subset, epoch: int) -> list[np.ndarray]:
    return samplers.epoch_batches(train, plan.data.sampling(plan.seed), epoch)


def _pattern(labels: np.ndarray) -> Sizes:
    """Return the sizes of the two largest and two smallest classes of a batch, reduced to 16.

    Keeps what losses depend on: whether there are pairs, negatives, and equal class sizes.
    """
    sizes = np.sort(np.unique(labels, return_counts=True)[1])[::-1]
    chosen = sizes if len(sizes) <= 4 else np.r_[sizes[:2], sizes[-2:]]
    return tuple(np.maximum(chosen - max(chosen[0] - _MOST_IMAGES, 0), 1).tolist())


def _labels(sizes: Sizes) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def _description(sizes: Sizes) -> str:
    if max(sizes) == 1:
        return "a batch without two images of a class"
    if len(sizes) == 1:
        return "a batch of one class"
    listed = " and ".join(map(str, dict.fromkeys(sizes)))
    return f"a batch with {listed} images of its classes"


def _remedy(plan: Experiment, train: Subset, config: LibraryLoss) -> str:
    """Name settings for equal class sizes if the loss works on these, else another loss."""
    size, classes = plan.data.batch_size, len(train.classes)
    groups = min(max(size // 2, 2), classes)
    if config.attempt(_labels((2,) * min(groups, 4))):
        return "another loss"
    settings = ["data.images_per_class=2"]
    settings += [f"data.batch_size={2 * groups}"] if 2 * groups != size else []
    settings += ["data.replacement=none"] if plan.data.replacement == "classes" else []
    return f"{' with '.join(settings)}, or another loss"


def _repeats_images(plan: Experiment, train: Subset) -> bool:
    """Return whether a batch may contain the same pixels twice."""
    data, transform = plan.data, plan.data.transform
    fixed = transform.crop in ("center", "none") and transform.flip in (0, 1)
    if not data.images_per_class or not fixed or transform.rotation:
        return False
    smallest = np.bincount(train.labels).min()
    return data.images_per_class > 1 and (
        data.replacement != "none" or bool(smallest < data.images_per_class)
    )
