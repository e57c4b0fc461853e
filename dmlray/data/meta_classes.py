"""DREML's random balanced map of classes onto meta-classes.

Source: Xuan, Souvenir, Pless, ECCV 2018, arXiv 1808.04469; leftthomas/DREML utils.py:24-51, with
identical random draws.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


def assign_meta_classes(classes: int, meta_classes: int, random: Random) -> list[int]:
    """Assign a meta-class to each of `classes`; meta-class sizes differ by at most one.

    With more meta-classes than classes some stay unused.
    """
    assigned: list[int] = []
    while len(assigned) < classes:
        shuffled = list(range(meta_classes))
        random.shuffle(shuffled)
        assigned += shuffled
    assigned = assigned[:classes]
    random.shuffle(assigned)
    return assigned


def cap(groups: Iterable[Sequence[Item]], most: int, random: Random) -> list[list[Item]]:
    """Sample `most` items of each larger group, so that no class outweighs the others."""
    return [random.sample(group, most) if len(group) > most else list(group) for group in groups]
