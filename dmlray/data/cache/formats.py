"""Image formats: which suffixes are listed, and which of Pillow's formats are opened.

Raster formats only. Pillow's others run programs (EPS: Ghostscript), draw vectors or hold videos.
"""

import re
from pathlib import PurePath

FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
    "PPM",
    "AVIF",
    "HEIF",
)  # MPO: phones' JPEGs
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
    }
)
HEAD = 16  # bytes that show the format

_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,9}~?")  # no match: ".30" of "10.20.30", ".jpg?size=2"
_HEIF = rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*"
    rb"|II\+\0|MM\0\+|P[1-6][ \t\r\n][\s#0-9]|....ftypavi[fs]|" + _HEIF,
    re.DOTALL,
)


def suffix(name: str) -> str:
    """Suffix of a file name in lower case; empty if the text after the last dot is not a suffix."""
    end = PurePath(name).suffix
    return end.lower() if _SUFFIX.fullmatch(end) else ""


def is_raster(head: bytes) -> bool:
    """Whether a file with the first `HEAD` bytes `head` has one of `FORMATS`."""
    return _MAGIC.match(head) is not None


def is_heif(head: bytes) -> bool:
    """Whether a file with the first `HEAD` bytes `head` is HEIF, as phones write it (HEIC)."""
    return re.match(_HEIF, head, re.DOTALL) is not None
