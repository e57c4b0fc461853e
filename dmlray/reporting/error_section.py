"""The part of a report that shows what went wrong: retrieval grids, classes, suspected labels."""

from math import inf, isnan
from typing import Any

from dmlray.evaluation.errors import PERCENTILE
from dmlray.evaluation.metrics import label
from dmlray.reporting.thumbnails import Thumbnails
from dmlray.results.error_analysis import METRICS, ErrorAnalysis

_CONFUSIONS, _SUSPECTS, _CLASSES = 12, 12, 500  # that the page shows; the tables have all
Item = dict[str, str | None]


def error_section(analysis: ErrorAnalysis, thumbnails: Thumbnails, images: int) -> dict[str, Any]:
    """Return the values of the template run.html, which shows `images` queries."""
    section = _Section(analysis, thumbnails)
    classes, suspects = analysis.classes, analysis.suspects
    shown = f"The worst {_CLASSES} of" if len(classes) > _CLASSES else "All"
    return {
        "grids": {
            title: [section.grid(query) for query in queries]
            for title, queries in analysis.queries(images).items()
        },
        "confusions": [
            {
                "text": f"{section.name(pair.first)} / {section.name(pair.second)}: {pair.images}",
                "pictures": section.pair(pair.query, pair.neighbour),
            }
            for pair in analysis.confusions[:_CONFUSIONS]
        ],
        "suspects": [
            {"pictures": section.pair(pair.first, pair.second, pair.similarity)}
            for pair in suspects[:_SUSPECTS]
        ],
        "suspects_text": f"{len(suspects)} pairs of neighbours of different classes are more alike "
        f"than {PERCENTILE} % of the pairs of one class.",
        "class_head": ["class", "images", *map(label, METRICS)],
        "classes": [
            [row.name, str(row.images), _percent(row.recall_at_1), _percent(row.map_at_r)]
            for row in classes[:_CLASSES]
        ],
        "classes_text": f"{shown} {len(classes)} classes, worst first. A click on a column's name "
        "sorts by it. All: classes.csv",
    }


class _Section:
    def __init__(self, analysis: ErrorAnalysis, thumbnails: Thumbnails) -> None:
        self._images, self._found = analysis.images, analysis.neighbours
        self._thumbnails = thumbnails

    def name(self, number: int) -> str:
        return self._images.names[number]

    def grid(self, query: int) -> list[Item]:
        """The query and its neighbours."""
        indices = self._found.indices[query].tolist()
        values = self._found.similarities[query].tolist()
        hits = (
            self._item(index, self._is_hit(query, index), value)
            for index, value in zip(indices, values, strict=True)
            if value > -inf  # there are fewer
        )
        return [self._item(query, "query"), *hits]

    def pair(self, first: int, second: int, similarity: float | None = None) -> list[Item]:
        """Two images of different classes."""
        return [self._item(first, "query"), self._item(second, "miss", similarity)]

    def _is_hit(self, query: int, index: int) -> str:
        return "hit" if self._images.classes[query] == self._images.classes[index] else "miss"

    def _item(self, index: int, kind: str, cosine: float | None = None) -> Item:
        file = self._images.files[index]
        return {
            "kind": kind,
            "mark": {"hit": "\u2713", "miss": "\u2717"}.get(kind, ""),
            "picture": self._thumbnails(file),
            "file": file,
            "name": self._images.classes[index],
            "cosine": None if cosine is None else f"{cosine:.3f}",
        }


def _percent(value: float) -> str:
    return "-" if isnan(value) else f"{100 * value:.1f}"
