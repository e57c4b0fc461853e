"""Letters drawn on this machine: a class is a letter, an image one typeface's drawing of it.

The typefaces are those that matplotlib comes with: DejaVu Sans, Sans Mono and Serif, and STIX, each
upright, oblique, bold and both. The classes are letters without accents: the first half is Latin,
most of the others are phonetic, Greek and Cyrillic.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFont

from dmlray.data.dataset import Dataset
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.drawn import load_drawn
from dmlray.data.datasets.icons import GLYPH, distinct, draw
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.errors import DataError

FAMILIES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
TYPEFACES = 16
DRAWING = 1  # increase it when drawing changes: cached images are kept otherwise


def load(root: Path | None) -> Dataset:
    """List the data set `letters`; the first call on a machine draws it."""
    return load_drawn("letters", DRAWING, root, _draw_all)


def find(root: Path | None) -> DatasetListing:
    """List the data set `letters` as `load` does: no file can be missing."""
    return DatasetListing("class folders", "as listed", load(root))


def _draw_all(target: Path) -> None:
    files = _typefaces()
    fonts = {file.stem: ImageFont.truetype(str(file), GLYPH) for file in files}
    for code, images in _unlike(files, fonts):
        (target / f"{code:05d}").mkdir()
        for name, image in images.items():
            image.save(target / f"{code:05d}" / f"{name}.png")


def _typefaces() -> list[Path]:
    """Files of the typefaces.

    Raises:
        DataError: If this matplotlib lacks some.
    """
    from matplotlib import get_data_path  # half a second to import, needed only here

    files = sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf"))
    found = [file for file in files if file.stem.split("-")[0].startswith("STIXGeneral")]
    found += [file for file in files if file.stem.split("-")[0] in FAMILIES[:3]]
    if len(found) != TYPEFACES:
        raise DataError(
            f"data set 'letters' needs the {TYPEFACES} typefaces {', '.join(FAMILIES)} of "
            f"matplotlib, which has {len(found)} of them"
        )
    return found


def _unlike(
    files: list[Path], fonts: dict[str, ImageFont.FreeTypeFont]
) -> Iterator[tuple[int, dict[str, Image.Image]]]:
    """Letters that every typeface has, without those that one draws as an earlier letter."""
    seen: set[bytes] = set()
    for code in _letters(files):
        images = {name: draw(font, code) for name, font in fonts.items()}
        drawings = {image.tobytes() for image in images.values()}
        if not drawings & seen:
            yield code, distinct(images)
        seen |= drawings


def _letters(files: list[Path]) -> list[int]:
    from matplotlib.ft2font import FT2Font

    shared = set.intersection(*({*FT2Font(str(file)).get_charmap()} for file in files))
    return sorted(
        code
        for code in shared
        if unicodedata.category(chr(code)) in ("Lu", "Ll")
        and not unicodedata.decomposition(chr(code))
    )


SPEC = DatasetSpec(
    "letters",
    "Letters drawn on this machine: a class is a letter, an image one typeface's drawing of it.",
    load,
    find,
)
