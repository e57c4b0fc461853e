"""The demo set: one class per icon, one image per icon family that draws it; needs no download.

Made from the fonts of the wheel `qtawesome` (MIT; each font has its own licence), which is never
imported, for it wants Qt. Near copies exist between sibling families, so MAP@R says more than R@1.
"""

import json
import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dmlray.data.cache import cache_folder
from dmlray.data.catalogue import Dataset
from dmlray.data.folder import list_folder
from dmlray.errors import DataError
from dmlray.storage import whole_folder

SIDE = 64  # pixels
_FONT = int(0.8 * SIDE)
_FAMILIES, _IMAGES = 3, 5  # a class needs so many of each, at least
_VERSION = 1  # of the drawing: a new one makes the images anew
_STYLES = {"outline", "fill", "line", "bold", "light", "thin"}
_DIRECTION = re.compile(r"-(left|right|up|down)$")
_SYNONYMS = """
house home | bin trash delete | gear cog settings | search magnify magnifier | image picture photo
envelope mail email | cart shopping-cart | comment chat message | lightbulb bulb
user account person | edit pencil | clock time | file file-text file-document | link chain
lock padlock | map-pin map-marker location | music music-note note | phone call telephone
plus add | minus remove subtract | refresh sync repeat | shopping-bag shopping
smiley smile emoticon | x close times | check tick | bell notification | gauge dashboard speedometer
hard-drive hdd harddisk | floppy-disk save floppy content-save | video video-camera
globe earth world | briefcase suitcase | brush paint-brush | share export
eye-closed eye-off eye-slash | bell-off bell-slash | microphone mic | record record-circle disc
target crosshair bullseye | timer stopwatch alarm | wifi wireless | bicycle bike
alert warning exclamation-triangle triangle-exclamation | door door-closed door-open
package archive box
"""
_MEANING = {
    word: group.split()[0] for group in re.split(r"[|\n]", _SYNONYMS) for word in group.split()
}


def load(root: Path | None) -> Dataset:
    """The demo set, drawn on first use below `root` (default: the cache folder).

    Raises:
        DataError: If the wheel with the fonts is missing.
    """
    folder = (root or cache_folder()) / f"demo-v{_VERSION}"
    if not folder.is_dir():
        icons = _icons()
        with whole_folder(folder) as temporary:
            for meaning, images in icons.items():
                (temporary / meaning).mkdir()
                for number, (pixels, family) in enumerate(sorted(images.items())):
                    image = Image.frombytes("L", (SIDE, SIDE), pixels)
                    image.save(temporary / meaning / f"{family}-{number:02d}.png")
    return list_folder("demo", folder)


def _icons() -> dict[str, dict[bytes, str]]:
    """Class -> its different images and the font that drew each first."""
    drawn: dict[str, dict[bytes, str]] = defaultdict(dict)
    vendors: dict[str, set[str]] = defaultdict(set)
    for name, (font, charmap) in sorted(_fonts().items()):
        for icon, code in sorted(charmap.items()):
            meaning = _meaning(icon)
            if meaning is not None:
                drawn[meaning].setdefault(_draw(font, chr(int(code, 16))), name)
                vendors[meaning].add(_vendor(name))
    return {
        meaning: images
        for meaning, images in drawn.items()
        if len(vendors[meaning]) >= _FAMILIES and len(images) >= _IMAGES
    }


def _meaning(icon: str) -> str | None:
    """Icon name -> class; None for directions and two-coloured icons, which make poor classes."""
    if "duotone" in icon:
        return None
    words = icon.replace("_", "-").split("-")
    while len(words) > 1 and words[-1] in _STYLES:
        words.pop()
    name = "-".join(words)
    return None if _DIRECTION.search(name) else _MEANING.get(name, name)


def _vendor(font: str) -> str:
    """Fonts of one vendor are one family: their icons are nearly the same."""
    for prefix in ("fontawesome", "materialdesign"):
        if font.startswith(prefix):
            return prefix
    return font


def _draw(font: ImageFont.FreeTypeFont, glyph: str) -> bytes:
    """Black on white, centred by the bounding box."""
    left, top, right, bottom = font.getbbox(glyph)
    image = Image.new("L", (SIDE, SIDE), 255)
    place = (SIDE / 2 - (left + right) / 2, SIDE / 2 - (top + bottom) / 2)
    ImageDraw.Draw(image).text(place, glyph, font=font, fill=0)
    return image.tobytes()


def _fonts() -> dict[str, tuple[ImageFont.FreeTypeFont, dict[str, str]]]:
    """Font name -> the font and its charmap {icon name: hexadecimal code point}."""
    try:
        files = distribution("qtawesome").files or []
    except PackageNotFoundError:
        raise DataError(
            'data.name: the demo set needs its fonts: pip install "dmlray[demo]"'
        ) from None
    fonts = {file.name.split("-")[0]: file for file in files if file.suffix == ".ttf"}
    charmaps = {file.name.split("-")[0]: file for file in files if file.suffix == ".json"}
    return {
        name: (
            ImageFont.truetype(str(fonts[name].locate()), _FONT),
            json.loads(Path(str(charmaps[name].locate())).read_text(encoding="utf-8")),
        )
        for name in fonts.keys() & charmaps.keys()
    }
