"""What a finished run gets wrong on its test images: by class, by pair of classes, by image."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO

import numpy as np
import torch
from torch import Tensor

from dmlray.atomic_files import whole_file
from dmlray.evaluation.errors import Confusion, Suspect, confusions, suspects
from dmlray.evaluation.neighbours import Neighbours, nearest, tiles, top
from dmlray.evaluation.ranking import Ranking
from dmlray.evaluation.retrieval import retrieval_values
from dmlray.evaluation.significance import Difference, class_interval
from dmlray.evaluation.task import RetrievalTask
from dmlray.plans.run_folder import RunFolder
from dmlray.results.scored_images import ScoredImages

NEIGHBOURS = 8
METRICS = ("recall_at_1", "map_at_r")
_CONFUSIONS = ("class", "other_class", "images", "query", "neighbour")
_SUSPECTS = ("path", "class", "other_path", "other_class", "similarity")


@dataclass(frozen=True)
class ClassRow:
    """Means over the queries of a class; NaN where none counts."""

    name: str
    images: int
    recall_at_1: float
    map_at_r: float


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Neighbours (N, K) of each test image, and METRICS of each (N,), NaN where it does not count.

    In place of a neighbour that is not there, and of all of an image that is no query, an image
    has itself with a similarity of -inf.
    """

    images: ScoredImages
    neighbours: Neighbours
    values: dict[str, np.ndarray]

    @cached_property
    def classes(self) -> list[ClassRow]:
        """The classes, worst first."""
        labels, rows = self.images.labels, []
        for number, name in enumerate(self.images.names):
            inside = labels == number
            means = [_mean(self.values[metric][inside]) for metric in METRICS]
            rows.append(ClassRow(name, int(inside.sum()), *means))
        return sorted(rows, key=lambda row: (np.nan_to_num(row.recall_at_1, nan=2), row.map_at_r))

    @cached_property
    def confusions(self) -> list[Confusion]:
        """Confused pairs of classes, most frequent first."""
        return confusions(self.images.labels, self.neighbours)

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Suspected label errors, most alike first."""
        return suspects(self.images.rows, self.images.labels, self.neighbours)

    def interval(self, metric: str) -> Difference | None:
        """The mean of one of METRICS with its interval over test classes; None for one class."""
        return class_interval(self.values[metric], self.images.labels)

    def queries(self, count: int, seed: int = 0) -> dict[str, list[int]]:
        """Choose so many queries in all: a third of the best, of the worst, and of random ones.

        By MAP@R, of different classes first. Among equally good ones the choice is random, among
        equally bad ones the most similar miss comes first.
        """
        values, nearest = self.values["map_at_r"], self.neighbours.similarities[:, 0].numpy()
        mixed = np.random.default_rng(seed).permutation(np.flatnonzero(~np.isnan(values)))
        third = -(-count // 3)
        best = mixed[np.argsort(-values[mixed], kind="stable")]
        worst = mixed[np.lexsort((-nearest[mixed], values[mixed]))]
        chosen = {
            "Worst queries": self._varied(worst),
            "Best queries": self._varied(best),
            "Random queries": mixed,
        }
        sizes = (third, min(third, count - third), max(0, count - 2 * third))
        return {
            title: rows[:size].tolist()
            for (title, rows), size in zip(chosen.items(), sizes, strict=True)
        }

    def _varied(self, queries: np.ndarray) -> np.ndarray:
        """The first query of each class, then all others, in order."""
        first = np.zeros(len(queries), dtype=bool)
        first[np.unique(self.images.labels[queries], return_index=True)[1]] = True
        return np.concatenate([queries[first], queries[~first]])

    def write(self, folder: RunFolder) -> None:
        """Write classes.csv, confusions.csv and suspects.csv."""
        names, files, of = self.images.names, self.images.files, self.images.classes
        classes = (tuple(vars(row).values()) for row in self.classes)
        _write(folder, "classes", ("class", "images", *METRICS), classes)
        pairs = (
            (names[c.first], names[c.second], c.images, files[c.query], files[c.neighbour])
            for c in self.confusions
        )
        _write(folder, "confusions", _CONFUSIONS, pairs)
        found = (
            (files[s.first], of[s.first], files[s.second], of[s.second], s.similarity)
            for s in self.suspects
        )
        _write(folder, "suspects", _SUSPECTS, found)


def analyse(images: ScoredImages) -> ErrorAnalysis:
    """Rank the gallery for each query; without roles, all others for each test image."""
    rows, task = images.rows.float(), images.task
    queries = task.of_queries(torch.arange(len(rows))).numpy()
    values = {name: np.full(len(rows), np.nan) for name in METRICS}
    for name, found in retrieval_values(rows, task, METRICS).items():
        values[name][queries] = found.numpy()
    if images.roles is None:
        return ErrorAnalysis(images, nearest(rows, min(NEIGHBOURS, len(rows) - 1)), values)
    return ErrorAnalysis(images, _in_gallery(rows, task), values)


def _in_gallery(rows: Tensor, task: RetrievalTask) -> Neighbours:
    """Nearest images (N, K) that count for each query, see `ErrorAnalysis`."""
    images = torch.arange(len(rows))
    queries, gallery = task.of_queries(images), task.of_gallery(images)
    k, hide = min(NEIGHBOURS, task.neighbours), Ranking("analysis", task, METRICS).hide
    similarities = torch.full((len(rows), k), -torch.inf)
    indices = images[:, None].repeat(1, k)
    for numbers, block in tiles(task.of_queries(rows), task.of_gallery(rows), hide):
        found, at = top(block, k), queries[numbers]
        similarities[at] = found.similarities
        there = found.similarities > -torch.inf
        indices[at] = torch.where(there, gallery[found.indices], at[:, None])
    return Neighbours(similarities, indices)


def _mean(values: np.ndarray) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")


def _write(
    folder: RunFolder, name: str, head: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    with whole_file(folder.table(name)) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
