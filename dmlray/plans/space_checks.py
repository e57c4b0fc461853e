"""What can be wrong with a space before anything runs."""

import math
from collections.abc import Iterator
from typing import Any

from dmlray.errors import ConfigError
from dmlray.knobs import Choice, Distribution, Value
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import override
from dmlray.plans.problems import nearest
from dmlray.plans.settings import Settings
from dmlray.plans.space import Ranges, holds
from dmlray.plans.voices import Voice, flatten


def mistakes(experiment: Experiment, ranges: Ranges, settings: Settings, said: Voice) -> list[str]:
    """Ranges that the experiment does not allow, that miss trial 0 or that no sampler takes."""
    known = flatten(experiment.document())
    found = list(_workers(experiment, ranges))
    for key, distribution in ranges.space.items():
        problems = list(_conditions(key, ranges, known))
        problems += problems or _ends(experiment, ranges, key, known)
        if settings.sampler == "grid" and math.isinf(distribution.size):
            problems.append(f"{key}: a grid needs steps. Allowed: step, int or choices")
        if not problems and holds(ranges.when.get(key, {}), known):
            problems += _base(key, distribution, known[key])
        found += [f"{_place(said, key)}  space.{problem}" for problem in problems]
    return found


def combinations(ranges: Ranges, base: dict[str, Any]) -> int:
    """How many points a grid has; only the conditions between its keys make it uneven."""
    keys = list(ranges.space)
    parents = {other for condition in ranges.when.values() for other in condition}

    def count(depth: int, values: dict[str, Any]) -> int:
        if depth == len(keys):
            return 1
        key, distribution = keys[depth], ranges.space[keys[depth]]
        if not holds(ranges.when.get(key, {}), values):
            return count(depth + 1, values)
        if key not in parents:
            return int(distribution.size) * count(depth + 1, values)
        return sum(count(depth + 1, {**values, key: value}) for value in _values(distribution))

    return count(0, base)


def _values(distribution: Distribution) -> list[Value]:
    if isinstance(distribution, Choice):
        return list(distribution.values)
    step = distribution.step or 1
    return [distribution.low + step * n for n in range(int(distribution.size))]


def _workers(experiment: Experiment, ranges: Ranges) -> Iterator[str]:
    if experiment.budget.workers > 1 or "budget.workers" in ranges.space:
        yield (
            "budget.workers: a search trains each fold on one device. "
            "Allowed: 1 (say `set: {budget.workers: 1}`), and folds_at_once"
        )


def _conditions(key: str, ranges: Ranges, known: dict[str, Any]) -> Iterator[str]:
    for other, values in ranges.when.get(key, {}).items():
        if other not in known:
            yield f"{key}: when: unknown key {other}.{nearest(other, known)}"
        elif other in ranges.space and not any(map(ranges.space[other].contains, values)):
            yield f"{key}: when: {other} is never {' or '.join(map(str, values))}"


def _ends(experiment: Experiment, ranges: Ranges, key: str, known: dict[str, Any]) -> Iterator[str]:
    """Both ends of a range, or all choices, must be legal where they can be asked for."""
    distribution = ranges.space[key]
    where = {other: values[0] for other, values in ranges.when.get(key, {}).items()}
    for end in _extremes(distribution):
        try:
            override(experiment, "space", {**where, key: end})
        except ConfigError as error:
            problem = error.problems[0].rpartition("  ")[2]  # its place is this file's
            yield problem if problem.startswith(key) else f"{key}: {end} is not allowed: {problem}"
            return
    if key not in known:
        yield (
            f"{key}: has no value in the experiment. "
            f"Allowed: give it one (`set: {{{key}: ...}}`), for it is trial 0"
        )


def _extremes(distribution: Distribution) -> tuple[Value, ...]:
    if isinstance(distribution, Choice):
        return distribution.values
    return distribution.low, distribution.high


def _base(key: str, distribution: Distribution, value: Any) -> Iterator[str]:
    if not distribution.contains(value):
        yield (
            f"{key}: the experiment's own value {value} lies outside. "
            "Allowed: a range that contains it, for it is trial 0"
        )


def _place(said: Voice, key: str) -> str:
    line = next((said.places[k] for k in said.values if k.startswith(f"{key}.")), None)
    return line or "the method's SPACE"
