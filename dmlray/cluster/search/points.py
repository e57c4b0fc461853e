"""Points of a space that were suggested, with their trials, and the remaining ones."""

import random
from collections.abc import Mapping
from typing import Any

from dmlray.plans.search import Search
from dmlray.plans.space_points import every_point, random_point

_LISTED = 10_000  # size up to which all points of a space are listed
_DRAWS = 1000  # attempts to find a new point of a larger space


class Points:
    """Trial of each suggested point; `seed` determines the order of the remaining points."""

    def __init__(self, plan: Search, seed: int) -> None:
        self._plan, self._rng = plan, random.Random(seed)
        self._trials: dict[str, int] = {}  # by fingerprint

    def claim(self, values: Mapping[str, Any], number: int) -> int:
        """Return the trial of these values: an earlier one, else `number`, which is recorded."""
        return self._trials.setdefault(self._plan.ranges.fingerprint(values), number)

    def left(self) -> dict[str, Any] | None:
        """Draw a random point without a trial; return None if none was found."""
        ranges, base = self._plan.ranges, self._plan.base()
        if self._plan.size <= _LISTED:
            points = [point for point in every_point(ranges, base) if self.is_new(point)]
            return self._rng.choice(points) if points else None
        draws = (random_point(ranges, base, self._rng) for _ in range(_DRAWS))
        return next(filter(self.is_new, draws), None)

    def is_new(self, point: Mapping[str, Any]) -> bool:
        """Whether no trial has this point."""
        return self._plan.ranges.fingerprint(point) not in self._trials
