"""Icons drawn on this machine: a class is a name, an image one font family's drawing of it.

The fonts are those of the package `qtawesome` (MIT; each font has its own licence). They are read
as files: importing the package would require Qt.
"""

import json
from collections import defaultdict
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePath
from typing import NamedTuple, TypeVar

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dmlray.data.dataset import Dataset
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.drawn import load_drawn
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.errors import DataError

SIDE = 64  # pixels
GLYPH = round(0.8 * SIDE)  # font size in pixels
MIN_VENDORS, MIN_IMAGES = 3, 5

STYLES = frozenset({"outline", "fill", "line", "bold", "light", "thin"})
# Mirrored or rotated icons would be classes that a random flip maps onto each other.
DIRECTIONS = frozenset({"left", "right", "up", "down"})
SYNONYMS = {
    alias: name
    for name, *aliases in (
        ("briefcase", "suitcase"),
        ("brush", "paint-brush"),
        ("chart", "graph", "chart-bar"),
        ("clock", "history"),
        ("comment", "message"),
        ("door", "door-open", "door-closed"),
        ("file", "file-text"),
        ("gear", "cog", "settings"),
        ("house", "home"),
        ("map-pin", "map-marker"),
        ("package", "archive"),
        ("pencil", "edit"),
        ("repeat", "refresh"),
        ("square", "stop"),
        ("timer", "alarm"),
        ("trash", "bin"),
    )
    for alias in aliases
}
DRAWING = 1  # increase it when drawing changes: cached icons are kept otherwise


Name = TypeVar("Name")


class Glyph(NamedTuple):
    """One drawing: `icon` is its name in `font`."""

    font: str
    icon: str
    code: int


def load(root: Path | None) -> Dataset:
    """List the data set `demo`; the first call on a machine draws it."""
    return load_drawn("demo", DRAWING, root, _draw_all)


def find(root: Path | None) -> DatasetListing:
    """List the data set `demo` as `load` does: no file can be missing."""
    return DatasetListing("class folders", "as listed", load(root))


def _draw_all(target: Path) -> None:
    wheel = _wheel()
    fonts = {
        _font_name(path): ImageFont.truetype(str(wheel.locate_file(path)), GLYPH)
        for path in wheel.files or ()
        if path.suffix == ".ttf"
    }
    for label, glyphs in _classes(wheel).items():
        images = distinct({glyph: draw(fonts[glyph.font], glyph.code) for glyph in glyphs})
        if len(images) >= MIN_IMAGES:
            (target / label).mkdir()
            for glyph, image in images.items():
                image.save(target / label / f"{glyph.font}-{glyph.icon}.png")


def _wheel() -> Distribution:
    try:
        return distribution("qtawesome")
    except PackageNotFoundError as error:
        raise DataError(
            "data set 'demo' is drawn from the icon fonts of the package qtawesome, which is not"
            ' installed. Run: pip install "dmlray[demo]"'
        ) from error


def _classes(wheel: Distribution) -> dict[str, list[Glyph]]:
    """Group the glyphs by name and keep names with at least `MIN_VENDORS` vendors."""
    glyphs: dict[str, list[Glyph]] = defaultdict(list)
    for path in wheel.files or ():
        # Logos of different vendors are copies of one drawing.
        if path.suffix == ".json" and "charmap" in path.name and "brands" not in path.name:
            codes = json.loads(Path(str(wheel.locate_file(path))).read_text(encoding="utf-8"))
            for icon, code in sorted(codes.items()):
                if label := _class_of(icon):
                    glyphs[label].append(Glyph(_font_name(path), icon, int(code, 16)))
    return {
        label: drawn
        for label, drawn in glyphs.items()
        if len({_vendor(glyph.font) for glyph in drawn}) >= MIN_VENDORS
    }


def _class_of(icon: str) -> str | None:
    words = icon.replace("_", "-").split("-")
    while len(words) > 1 and words[-1] in STYLES:
        words.pop()
    if "duotone" in words or (len(words) > 1 and words[-1] in DIRECTIONS):
        return None
    name = "-".join(words)
    return SYNONYMS.get(name, name)


def _font_name(path: PurePath) -> str:
    """`fonts/fontawesome5-solid-webfont-charmap-5.15.4.json` -> `fontawesome5-solid`."""
    family, style, *_ = path.name.split("-")
    return f"{family}-{style}" if style in ("regular", "solid", "brands") else family


def _vendor(font: str) -> str:
    """`fontawesome5-solid` -> `fontawesome`: weights and versions share one designer."""
    return font.split("-")[0].rstrip("0123456789")


def draw(font: ImageFont.FreeTypeFont, code: int) -> Image.Image:
    """Draw the character `code` in black on white, centred by its pixels."""
    canvas = Image.new("L", (3 * SIDE, 3 * SIDE))
    ImageDraw.Draw(canvas).text((SIDE, SIDE), chr(code), font=font, fill=255)
    # Bounding box of the pixels: the font's box includes margins, so it would not centre the icon.
    left, top, right, bottom = canvas.getbbox() or (0, 0, 0, 0)
    corner = ((left + right - SIDE) // 2, (top + bottom - SIDE) // 2)
    return ImageOps.invert(canvas.crop((*corner, corner[0] + SIDE, corner[1] + SIDE)))


def distinct(images: dict[Name, Image.Image]) -> dict[Name, Image.Image]:
    """Keep the first of identical images."""
    first = {image.tobytes(): glyph for glyph, image in reversed(images.items())}
    return {glyph: image for glyph, image in images.items() if first[image.tobytes()] == glyph}


SPEC = DatasetSpec(
    "demo",
    "Icons drawn on this machine: a class is a name, an image one font family's drawing of it.",
    load,
    find,
)
