"""One self-contained page of a search: each query beside its neighbours, as small pictures."""

from collections.abc import Sequence
from pathlib import Path

from dmlray.data.cache.decode import MAX_PIXELS
from dmlray.errors import DataError
from dmlray.inference.images import read_image
from dmlray.inference.search import Hit
from dmlray.reporting.pages import render
from dmlray.reporting.thumbnails import jpeg_address

SIDE = 128  # pixels of the longer side


def query_page(
    queries: Sequence[Path],
    found: Sequence[Sequence[Hit]],
    protocol: str,
    threshold: float | None = None,
) -> str:
    """The page as text.

    `protocol` says what the scores of the model depend on, `threshold` from which cosine on a
    neighbour is marked as a match.
    """
    rows = [
        {"name": path.name, "picture": _picture(path), "hits": [_described(hit) for hit in hits]}
        for path, hits in zip(queries, found, strict=True)
    ]
    limit = None if threshold is None else f"{threshold:.4f}"
    return render(
        "query.html", title="Nearest images", queries=rows, protocol=protocol, threshold=limit
    )


def _described(hit: Hit) -> dict[str, object]:
    return {
        "rank": hit.rank,
        "path": hit.path,
        "label": hit.label,
        "similarity": f"{hit.similarity:.3f}",
        "match": hit.match,
        "picture": _picture(Path(hit.path)),
    }


def _picture(path: Path) -> str | None:
    """A small JPEG as an address that holds it; None where the image is gone."""
    try:
        image = read_image(path, MAX_PIXELS)
    except DataError:
        return None
    return jpeg_address(image, SIDE, quality=85)
