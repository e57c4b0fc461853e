"""One self-contained page of a search: each query beside its neighbours, as small pictures."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from dmlray.data.cache.decode import MAX_PIXELS
from dmlray.errors import DataError
from dmlray.inference.images import read_image
from dmlray.inference.search import Hit
from dmlray.reporting.pages import render

SIDE = 128  # pixels of the longer side


def query_page(queries: Sequence[Path], found: Sequence[Sequence[Hit]], protocol: str) -> str:
    """The page as text; `protocol` says what the scores of the model depend on."""
    rows = [
        {"name": path.name, "picture": _picture(path), "hits": [_described(hit) for hit in hits]}
        for path, hits in zip(queries, found, strict=True)
    ]
    return render("query.html", title="Nearest images", queries=rows, protocol=protocol)


def _described(hit: Hit) -> dict[str, object]:
    return {
        "rank": hit.rank,
        "path": hit.path,
        "label": hit.label,
        "similarity": f"{hit.similarity:.3f}",
        "picture": _picture(Path(hit.path)),
    }


def _picture(path: Path) -> str | None:
    """A small JPEG as an address that holds it; None where the image is gone."""
    try:
        image = read_image(path, MAX_PIXELS)
    except DataError:
        return None
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    packed = BytesIO()
    small.save(packed, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
