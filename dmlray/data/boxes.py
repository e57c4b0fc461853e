"""Boxes: a part of an image file that is an image of its own, named as W3C Media Fragments does.

`shelf.jpg#xywh=10,20,100,200` is a box of `shelf.jpg`. Lists of images, fingerprints, caches and
pages name it so; only what opens the file splits the name.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("x1", "y1", "x2", "y2")

_LARGEST = 999_999_999  # pixels: the 9 digits of a name
_NAME = re.compile(r"(.+)#xywh=(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", re.DOTALL)


class Box(NamedTuple):
    """Pixels of the upright image; `right` and `bottom` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def problem(self, height: int, width: int) -> str | None:
        """Describe why the box is no part of an image of (height, width); None if it is one."""
        if self.right <= self.left or self.bottom <= self.top:
            return f"box {', '.join(map(str, self))} has no area"
        if self.right <= width and self.bottom <= height:
            return None
        return f"box {', '.join(map(str, self))} reaches outside of the image of {width} x {height}"


def named(file: str, box: Box | None) -> str:
    """Name the box of a file; without a box the file itself."""
    if box is None:
        return file
    left, top, right, bottom = box
    return f"{file}#xywh={left},{top},{right - left},{bottom - top}"


def split(name: str) -> tuple[str, Box | None]:
    """Return the file and the box of a name; None is the whole image."""
    match = _NAME.fullmatch(name)
    if not match:
        return name, None
    left, top, width, height = map(int, match.groups()[1:])
    return match[1], Box(left, top, left + width, top + height)


def file_of(path: Path) -> Path:
    """Return the file of a path that may name a box."""
    return Path(split(str(path))[0])


def parse(values: Mapping[str, str]) -> Box | None:
    """Read the box of a row of a table from its cells `COLUMNS`; None if all are empty.

    Decimals are rounded to whole pixels.

    Raises:
        ValueError: If some are empty or no numbers, or the box starts outside or has no area.
    """
    written = [values[column] for column in COLUMNS]
    if not any(written):
        return None
    try:
        numbers = [float(text) for text in written]
    except ValueError:
        numbers = [math.nan]
    shown = ", ".join(written)
    if not all(abs(number) <= _LARGEST for number in numbers):  # also NaN
        raise ValueError(f"box {shown!r}: expected 4 numbers of pixels, or 4 empty cells")
    box = Box(*(round(number) for number in numbers))
    if box.right <= box.left or box.bottom <= box.top:
        raise ValueError(f"box {shown} has no area: expected x1 < x2 and y1 < y2")
    if box.left < 0 or box.top < 0:
        raise ValueError(f"box {shown} reaches outside of the image: expected x1 and y1 from 0")
    return box
