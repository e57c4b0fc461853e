"""Which points of a space were suggested, by which trial, and which are left."""

import random
from collections.abc import Mapping
from typing import Any

from dmlray.plans.search import Search
from dmlray.plans.space_points import every_point, random_point

_LISTED = 10_000  # points of a space that are listed to find those that are left
_DRAWS = 1000  # of a larger one, until a point is new


class Points:
    """The trial of each point that was suggested; `seed` is of the order of those that are left."""

    def __init__(self, plan: Search, seed: int) -> None:
        self._plan, self._dice = plan, random.Random(seed)
        self._trials: dict[str, int] = {}  # by fingerprint

    def claim(self, values: Mapping[str, Any], number: int) -> int:
        """The trial that these values belong to: an earlier one, else `number` from now on."""
        return self._trials.setdefault(self._plan.ranges.fingerprint(values), number)

    def left(self) -> dict[str, Any] | None:
        """A point that no trial has, drawn at random, or None where none was found."""
        ranges, base = self._plan.ranges, self._plan.base()
        if self._plan.size <= _LISTED:
            points = [point for point in every_point(ranges, base) if self._is_new(point)]
            return self._dice.choice(points) if points else None
        draws = (random_point(ranges, base, self._dice) for _ in range(_DRAWS))
        return next(filter(self._is_new, draws), None)

    def _is_new(self, point: dict[str, Any]) -> bool:
        return self._plan.ranges.fingerprint(point) not in self._trials
