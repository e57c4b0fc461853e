"""One image file -> upright 8-bit RGB. No torch here: the processes of a build start fast."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dmlray.errors import DataError

LONGEST = 32  # times the short side: beyond, a thread of pixels would fill the memory
TURNS = {  # EXIF's orientation -> what brings the image upright; ImageOps.exif_transpose would copy
    2: Image.Transpose.FLIP_LEFT_RIGHT,  # each image, and stop at damaged EXIF
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def decode(path: Path, short_side: int | None) -> np.ndarray:
    """Read an image as (height, width, 3) uint8, resized to `short_side` pixels unless None.

    Raises:
        DataError: If the file is no image, is cut short or has too many pixels.
    """
    with _opened(path) as image:
        turn = TURNS.get(_orientation(image))
        pixels = _to_rgb(image)
        if turn is not None:
            pixels = pixels.transpose(turn)
        if short_side is not None:
            height, width = resized(pixels.height, pixels.width, short_side)
            if (width, height) != pixels.size:
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(pixels)


def decoded_size(path: Path, short_side: int | None) -> tuple[int, int]:
    """Tell the (height, width) of `decode` from the file's header."""
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) in SIDEWAYS:
            width, height = height, width
    return (height, width) if short_side is None else resized(height, width, short_side)


def resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Scale (height, width) to a short side as torchvision's Resize does: the long one floors.

    Departs: the long side is at most 32 times the short one, for images of 1 x N pixels.
    """
    longer = min(int(short_side * max(height, width) / min(height, width)), LONGEST * short_side)
    return (short_side, longer) if height <= width else (longer, short_side)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong inside is a DataError that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; the pixels are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            limit = f"{Image.MAX_IMAGE_PIXELS or 0:,} pixels"
            raise DataError(f"{path}: refused, has more than {limit}.") from error
        except Exception as error:  # Pillow's readers have no common error: OSError, struct, ...
            raise DataError(f"{path}: not a readable image: {_reason(path, error)}.") from error


def _reason(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content has no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF's number as a file's header has it: 1 is upright, 2 to 8 are in `TURNS`.

    Departs: Pillow also looks behind the pixels of a PNG, and decodes them to get there.
    """
    try:
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # as many kinds as ways to damage EXIF, which says nothing of the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode; what is transparent becomes white."""
    if image.mode.startswith("I"):  # 16-bit grey, where Pillow's own conversion clips
        grey = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
