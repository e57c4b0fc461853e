"""The points of a space: how many there are, all of them, and random ones."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from dmlray.distributions import Choice, Distribution, Float, Int, Value
from dmlray.plans.search_space import Ranges, holds


def combinations(ranges: Ranges, base: Mapping[str, Any]) -> float:
    """How many points there are: infinitely many where a range without steps can be drawn from.

    Only conditions make a space uneven, and of the values that none of them names one stands for
    all.
    """
    keys = list(ranges.space)

    def count(depth: int, values: Mapping[str, Any]) -> float:
        if depth == len(keys):
            return 1
        key, distribution = keys[depth], ranges.space[keys[depth]]
        if not holds(ranges.when.get(key, {}), values):
            return count(depth + 1, values)
        named = _named(key, ranges)
        others = distribution.size - len(named)
        cases = [(1.0, {**values, key: value}) for value in named]
        cases += [(others, {**values, key: _Other})] if others else []
        return sum(times * count(depth + 1, case) for times, case in cases)

    return count(0, base)


class _Other:
    """A value that no condition names."""


def _named(key: str, ranges: Ranges) -> list[Value]:
    """The values of a key that conditions name and that it can have."""
    origins = {
        value for condition in ranges.when.values() for value in condition.get(key, ())
    }  # equal numbers of two types are one
    return [value for value in origins if ranges.space[key].contains(value)]


def every_point(ranges: Ranges, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All points of a finite space, in order."""
    keys = list(ranges.space)

    def grow(depth: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if depth == len(keys):
            yield values
            return
        key = keys[depth]
        if not holds(ranges.when.get(key, {}), {**base, **values}):
            yield from grow(depth + 1, values)
            return
        for value in _values(ranges.space[key]):
            yield from grow(depth + 1, {**values, key: value})

    return grow(0, {})


def random_point(
    ranges: Ranges, base: Mapping[str, Any], dice: random.Random, ends: bool = False
) -> dict[str, Any]:
    """A point drawn evenly key by key; with `ends` from choices and the ends of ranges alone."""
    draw = _end if ends else _inner
    return ranges.walk(base, lambda key, distribution: draw(distribution, dice))


def corners(ranges: Ranges, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each choice and both ends of whole numbers, with what lets them be asked for and no more."""
    for key, distribution in ranges.space.items():
        condition = ranges.when.get(key, {})
        where = {other: values[0] for other, values in condition.items() if other in ranges.space}
        if isinstance(distribution, Float) or not holds(condition, {**base, **where}):
            continue
        for value in extremes(distribution):
            if where or value != base.get(key):
                yield {**where, key: value}


def extremes(distribution: Distribution) -> tuple[Value, ...]:
    """All choices, or both ends."""
    if isinstance(distribution, Choice):
        return distribution.values
    return distribution.low, distribution.high


def _values(distribution: Distribution) -> Iterator[Value]:
    if isinstance(distribution, Choice):
        yield from distribution.values
        return
    yield from (_value(distribution, n) for n in range(int(distribution.size)))


def _value(distribution: Float | Int, number: int) -> float:
    """Value `number` of a range in steps, whose sum of decimals must not pass the end."""
    return min(distribution.high, distribution.low + (distribution.step or 1) * number)


def _end(distribution: Distribution, dice: random.Random) -> Value:
    return dice.choice(extremes(distribution))


def _inner(distribution: Distribution, dice: random.Random) -> Value:
    if isinstance(distribution, Choice):
        return dice.choice(distribution.values)
    if isinstance(distribution, Float) and not distribution.step:
        return dice.uniform(distribution.low, distribution.high)
    return _value(distribution, dice.randrange(int(distribution.size)))
