"""RetrievalTask: who is searched with, in what, and which pairs do not count."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dmlray.errors import DataError


class Classes(NamedTuple):
    """Which gallery items are of the class of which query.

    Query q's class is members[start[q] : start[q] + size[q]], gallery indices in rising order.
    """

    queries: Tensor  # (Q,) labels
    gallery: Tensor  # (G,) labels
    members: Tensor  # (G,)
    start: Tensor  # (Q,)
    size: Tensor  # (Q,)

    def columns(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Gallery indices (B, largest class) of the classes of queries numbers (B,).

        The second tensor marks where a class is smaller and an index is padding.
        """
        size = self.size[numbers, None]
        within = torch.arange(int(size.max()), device=self.members.device)
        place = (self.start[numbers, None] + within).clamp(max=len(self.members) - 1)
        return self.members[place], within >= size


def classes_of(queries: Tensor, gallery: Tensor) -> Classes:
    """Index gallery labels (G,) for queries of labels (Q,)."""
    ordered, members = gallery.sort(stable=True)
    start = torch.searchsorted(ordered, queries)
    size = torch.searchsorted(ordered, queries, right=True) - start
    return Classes(queries, gallery, members, start, size)


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Queries, which are searched for in a gallery, among images of labels (N,).

    `queries` (Q,) and `gallery` (G,) are indices of images, all by default. No image is searched
    for in itself. With `groups` (N,), such as cameras, images of equal label and equal group are
    not searched for in each other either, as in re-identification. A query whose class has nothing
    else in the gallery does not count.

    Source: Zheng et al., Scalable Person Re-identification, ICCV 2015, for groups.
    """

    labels: Tensor
    queries: Tensor | None = None
    gallery: Tensor | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        for name, chosen in (("queries", self.queries), ("gallery", self.gallery)):
            if chosen is not None:
                _check_chosen(name, chosen, len(self.labels))
        if self.groups is not None and self.groups.shape != self.labels.shape:
            shapes = f"{tuple(self.groups.shape)} for labels of shape {tuple(self.labels.shape)}"
            raise DataError(f"groups: shape {shapes} is not allowed. Allowed: one of each image")

    def to(self, device: torch.device | str) -> "RetrievalTask":
        """The same on another device."""
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def neighbours(self) -> int:
        """How many gallery items each query has beside itself; groups may leave fewer."""
        return self.gallery_size - int(bool((self.own_columns() >= 0).any()))

    @property
    def query_count(self) -> int:
        """Q."""
        return len(self.labels) if self.queries is None else len(self.queries)

    @property
    def gallery_size(self) -> int:
        """G."""
        return len(self.labels) if self.gallery is None else len(self.gallery)

    def of_queries(self, rows: Tensor) -> Tensor:
        """Rows (Q, ...) of the queries, of rows (N, ...) of all images."""
        return _rows(rows, self.queries)

    def of_gallery(self, rows: Tensor) -> Tensor:
        """Rows (G, ...) of the gallery, of rows (N, ...) of all images."""
        return _rows(rows, self.gallery)

    def classes(self) -> Classes:
        """The gallery items of each query's class."""
        return classes_of(self.of_queries(self.labels), self.of_gallery(self.labels))

    def own_columns(self) -> Tensor:
        """(Q,) the place of each query in the gallery; -1 if it is not there."""
        images = torch.arange(len(self.labels), device=self.labels.device)
        places = torch.full_like(images, -1)
        gallery = self.of_gallery(images)
        places[gallery] = torch.arange(len(gallery), device=images.device)
        return self.of_queries(places)

    def group_mates(self) -> Classes | None:
        """The gallery items of each query's label and group; None without groups."""
        if self.groups is None:
            return None
        both = [ids.unique(return_inverse=True)[1] for ids in (self.labels, self.groups)]
        numbers = torch.stack(both, 1).unique(dim=0, return_inverse=True)[1]
        return classes_of(self.of_queries(numbers), self.of_gallery(numbers))


def _check_chosen(name: str, chosen: Tensor, images: int) -> None:
    if chosen.ndim != 1 or not len(chosen) or chosen.dtype != torch.int64:
        problem = f"{chosen.dtype} of shape {tuple(chosen.shape)} is not allowed"
        raise DataError(f"{name}: {problem}. Allowed: indices of at least one image")
    if not 0 <= int(chosen.min()) <= int(chosen.max()) < images:
        problem = f"indices of {int(chosen.min())} to {int(chosen.max())} are not allowed"
        raise DataError(f"{name}: {problem}. Allowed: 0 to {images - 1}")
    if len(chosen.unique()) < len(chosen):
        raise DataError(f"{name}: holds an image twice. Allowed: different images")


def _rows(rows: Tensor, chosen: Tensor | None) -> Tensor:
    """A view where all rows, or neighbouring ones, are chosen: rows may be a large file."""
    if chosen is None:
        return rows
    first, count = int(chosen[0]), len(chosen)
    if bool((chosen[1:] - chosen[:-1] == 1).all()):
        return rows[first : first + count]
    return rows[chosen.to(rows.device)]
