"""Roles of images in retrieval: which are searched with, in which, and whose pairs do not count."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

QUERY, GALLERY, BOTH = ROLES = ("query", "gallery", "both")


@dataclass(frozen=True, eq=False)
class Roles:
    """`queries` and `gallery` (N,) bool: the images searched with, and those searched in.

    `groups` (N,) int64, such as cameras: images of equal label and group are not compared.
    """

    queries: np.ndarray
    gallery: np.ndarray
    groups: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> "Roles":
        """The roles of the images `rows`, indices or a mask."""
        groups = None if self.groups is None else self.groups[rows]
        return Roles(self.queries[rows], self.gallery[rows], groups)

    def names(self) -> list[str]:
        """Each image's role, of ROLES."""
        pairs = zip(self.queries, self.gallery, strict=True)
        return [BOTH if query and shown else QUERY if query else GALLERY for query, shown in pairs]

    def details(self) -> Iterator[str]:
        """Each image's role and group as text, for a fingerprint."""
        groups = np.full(len(self.queries), -1) if self.groups is None else self.groups
        for query, gallery, group in zip(self.queries, self.gallery, groups, strict=True):
            yield f"{int(query)}{int(gallery)}\0{group}"


def roles_of(names: Sequence[str], groups: Sequence[str] | None = None) -> Roles:
    """Roles by their names (N,), of ROLES; an empty group (N,) is shared with no other image."""
    array = np.array(names)
    return Roles(array != GALLERY, array != QUERY, None if groups is None else _numbered(groups))


def _numbered(groups: Sequence[str]) -> np.ndarray:
    distinct = [group or (place,) for place, group in enumerate(groups)]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(distinct))}
    return np.array([numbers[group] for group in distinct], dtype=np.int64)


def with_match(labels: np.ndarray, roles: Roles | None) -> np.ndarray:
    """Which images (N,) are queries that have an image of their label to find in the gallery."""
    count = partial(np.bincount, minlength=int(labels.max(initial=-1)) + 1)
    if roles is None:
        return np.asarray(count(labels)[labels] > 1)
    hidden = roles.gallery.astype(np.int64)  # each image itself
    if roles.groups is not None:
        pairs = np.unique(np.stack([labels, roles.groups]), axis=1, return_inverse=True)[1].ravel()
        hidden = np.bincount(pairs[roles.gallery], minlength=len(labels))[pairs]
    matched = count(labels[roles.gallery])[labels] > hidden
    return np.asarray(roles.queries & matched)
