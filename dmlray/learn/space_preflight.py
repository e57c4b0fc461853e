"""Checks of the points of a search before any is trained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dmlray import backbones, methods
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.errors import ConfigError, DmlrayError
from dmlray.learn.preflight import preflight
from dmlray.plans.search import Search
from dmlray.plans.space_checks import spelled_like

_MAX_PROBLEMS = 5  # listed
_SHAPELESS = ("optimizer.", "budget.epochs", "budget.warmup", "budget.head_warmup")
_BATCH = ("data.batch_size", "data.images_per_class", "data.replacement")


def preflight_space(search: Search, dataset: Dataset) -> None:
    """Check each choice, the bounds of integers and combinations of batch settings.

    Real numbers change neither shapes nor counts and are not checked.

    Raises:
        ConfigError: Lists why trials of `search` would fail.
    """
    train = train_subset(dataset)
    problems: list[str] = []
    with _quiet():
        for values in _points(search):
            if problem := _problem(search, values, train):
                problems.append(f"{spelled_like(values)}: {problem}")
    if problems:
        raise ConfigError("space", problems[:_MAX_PROBLEMS])


def _points(search: Search) -> list[dict[str, Any]]:
    """Return the distinct points that differ in shapes; the experiment itself is checked before."""
    corners = (values for values in search.corners() if not [*values][-1].startswith(_SHAPELESS))
    batches = ({key: point[key] for key in _BATCH if key in point} for point in search.sample())
    points = [*corners, *(values for values in batches if len(values) > 1)]
    return list({search.ranges.fingerprint(values): values for values in points}.values())


def _problem(search: Search, values: dict[str, Any], train: Subset) -> str | None:
    """Return why a trial with these values would fail or be useless, None if it works."""
    plan = search.point(values)
    if "data.batch_size" in values and plan.data.batch_size > len(train):
        return f"there are {len(train)} images to train on. Allowed: at most as many"
    try:
        preflight(plan, folds=True)
        backbone = plan.backbone
        trunk = backbones.build(backbone.name, "none", backbone.pooling, backbone.batchnorm)
        learner = methods.load(plan.method.name).Learner
        learner(plan.method.config, trunk, trunk.width, len(train.classes))
    except DmlrayError as error:
        return str(error).removeprefix(f"{next(iter(values))}: ")
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: those of the experiment were already logged."""
    logger = logging.getLogger(preflight.__module__.rpartition(".")[0])
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
