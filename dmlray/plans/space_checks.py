"""What can be wrong with a space before anything runs."""

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from dmlray.distributions import Distribution
from dmlray.errors import ConfigError
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import ConfigSource, flatten
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override
from dmlray.plans.search_settings import SearchSettings
from dmlray.plans.search_space import Ranges, holds
from dmlray.plans.space_points import combinations, every_point, extremes, random_point

# What a score is a score of, and what is only luck: trials that differ in these are not compared.
_MEASURE = (
    "data.name", "data.root", "data.split", "data.skip_broken", "data.max_megapixels", "loggers",
    "method.teacher",
)  # fmt: skip
_SAMPLES = 128  # points that stand for a large space
_MOST_POINTS = 5  # that are refused for a reason of their own


def space_problems(
    experiment: Experiment, ranges: Ranges, settings: SearchSettings, origins: ConfigSource
) -> list[str]:
    """Ranges that the experiment does not allow, that miss trial 0 or that no sampler takes."""
    known = flatten(experiment.document())
    found = [*_workers(experiment, ranges), *_sampler(settings)]
    for key, distribution in ranges.space.items():
        problems = [*_unlike(key, ranges), *_conditions(key, ranges, known)]
        problems = problems or list(_ends(experiment, ranges, key, known))
        if settings.sampler == "grid" and math.isinf(distribution.size):
            problems.append(f"{key}: a grid needs steps. Allowed: step, int or choices")
        if not problems and holds(ranges.when.get(key, {}), known):
            problems += _base(key, distribution, known[key])
        found += [f"{location_of(origins, key)}  space.{problem}" for problem in problems]
    return found or list(_points(experiment, ranges, known, origins))


def sample_points(ranges: Ranges, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All points of a small space; of a large one corners and inner points, always the same."""
    if combinations(ranges, base) <= _SAMPLES:
        yield from every_point(ranges, base)
        return
    dice = random.Random(0)
    for number in range(_SAMPLES):
        yield random_point(ranges, base, dice, ends=number % 2 == 0)


def is_measure(key: str) -> bool:
    """Whether trials that differ in `key` would measure different things."""
    last = key.rpartition(".")[2]
    seed = last == "seed" or last.endswith("_seed")
    return seed or key.startswith("protocol.") or key in ("method.name", "protocol", *_MEASURE)


def _unlike(key: str, ranges: Ranges) -> Iterator[str]:
    fixed = "Allowed: one value for all trials"
    if is_measure(key):
        yield (
            f"{key}: trials that differ in it measure different things and cannot be compared. "
            f"{fixed} (`set: {{{key}: ...}}`)"
        )
    for other in ranges.when.get(key, {}):
        if is_measure(other):
            yield f"{key}: when: {other} is the same for all trials. {fixed} or none of {key}"


def _points(
    experiment: Experiment, ranges: Ranges, known: dict[str, Any], origins: ConfigSource
) -> Iterator[str]:
    """Points that the reader of an experiment refuses, each with the fewest keys that it takes."""
    seen: set[frozenset[str]] = set()
    for point in sample_points(ranges, known):
        if not refusal(experiment, point):
            continue
        least = _least(experiment, point)
        if (keys := frozenset(least)) in seen:
            continue
        seen.add(keys)
        location = next((location_of(origins, key) for key in least), "")
        verdict = "cannot go together" if len(least) > 1 else "is not allowed"
        yield f"{location}  space: {spelled_like(least)} {verdict}: {refusal(experiment, least)}"
        if len(seen) == _MOST_POINTS:
            return


def spelled_like(values: Mapping[str, Any]) -> str:
    """`key = value` of a point or of a part of it."""
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def refusal(experiment: Experiment, values: dict[str, Any]) -> str | None:
    """Why the reader of an experiment does not take these values, or None."""
    try:
        override(experiment, "space", values)
    except ConfigError as error:
        return error.problems[0].rpartition("  ")[2]  # its place is this file's
    return None


def _least(experiment: Experiment, point: dict[str, Any]) -> dict[str, Any]:
    """The part of a refused point that is refused by itself; other keys as in the experiment."""
    least = dict(point)
    for key in point:
        fewer = {other: value for other, value in least.items() if other != key}
        if refusal(experiment, fewer):
            least = fewer
    return least


def _workers(experiment: Experiment, ranges: Ranges) -> Iterator[str]:
    if experiment.budget.workers > 1 or "budget.workers" in ranges.space:
        yield (
            "budget.workers: a search trains each fold on one device. "
            "Allowed: 1 (say `set: {budget.workers: 1}`), and folds_at_once"
        )


def _sampler(settings: SearchSettings) -> Iterator[str]:
    if settings.sampler == "cmaes" and len(settings.metric or ()) > 1:
        yield "sampler: cmaes seeks one metric. Allowed for several: tpe, gp, random, grid"


def _conditions(key: str, ranges: Ranges, known: dict[str, Any]) -> Iterator[str]:
    for other, values in ranges.when.get(key, {}).items():
        if other not in known:
            yield f"{key}: when: unknown key {other}.{nearest_or_all(other, known)}"
        elif other in ranges.space and not any(map(ranges.space[other].contains, values)):
            yield f"{key}: when: {other} is never {' or '.join(map(str, values))}"


def _ends(experiment: Experiment, ranges: Ranges, key: str, known: dict[str, Any]) -> Iterator[str]:
    """Both ends of a range, or all choices, must be legal where they can be asked for."""
    distribution = ranges.space[key]
    where = {other: values[0] for other, values in ranges.when.get(key, {}).items()}
    for end in extremes(distribution):
        if problem := refusal(experiment, {**where, key: end}):
            yield problem if problem.startswith(key) else f"{key}: {end} is not allowed: {problem}"
            return
    if key not in known:
        yield (
            f"{key}: has no value in the experiment. "
            f"Allowed: give it one (`set: {{{key}: ...}}`), for it is trial 0"
        )


def _base(key: str, distribution: Distribution, value: Any) -> Iterator[str]:
    if not distribution.contains(value):
        yield (
            f"{key}: the experiment's own value {value} lies outside. "
            "Allowed: a range that contains it, for it is trial 0"
        )


def location_of(origins: ConfigSource, key: str) -> str:
    """Return where the range of `key` was given."""
    line = next((origins.location(k) for k in origins.values if k.startswith(f"{key}.")), None)
    return line or "the method's SPACE"
