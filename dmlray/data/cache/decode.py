"""Decode one image file to upright 8-bit RGB. No torch import: build processes start fast."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from dmlray.data import boxes
from dmlray.data.boxes import Box
from dmlray.data.cache.formats import FORMATS, HEAD, is_heif
from dmlray.data.cache.pixels import Rgb, to_rgb
from dmlray.errors import DataError
from dmlray.file_reading import open_regular

MAX_PIXELS = 178_956_970  # Pillow's limit: twice Image.MAX_IMAGE_PIXELS
LONGEST = 32  # times the short side: longer images, such as 1 x N pixels, could fill the memory
TURNS = {  # EXIF orientation -> transposition; ImageOps.exif_transpose would copy each image
    2: Image.Transpose.FLIP_LEFT_RIGHT,  # and fail on damaged EXIF
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


class UnreadableImageError(DataError):
    """An image that cannot be decoded, with a `reason` that does not name its path.

    `broken`: the cause is its content, not the disk or the memory, so a retry would not help.
    """

    def __init__(self, text: str, reason: str, broken: bool) -> None:
        super().__init__(text)
        self.reason, self.broken = reason, broken

    def __reduce__(self) -> tuple[type, tuple[str, str, bool]]:
        return type(self), (str(self), self.reason, self.broken)


def decode(path: Path, short_side: int | None, max_pixels: int | None = None) -> np.ndarray:
    """Read an image as (height, width, 3) uint8, resized to `short_side` pixels unless None.

    Args:
        path: File of the image, or a box in it.
        short_side: Pixels of the shorter side; None keeps the size.
        max_pixels: Larger images are refused before memory is allocated; None means twice
            Pillow's MAX_IMAGE_PIXELS.

    Raises:
        UnreadableImageError: If the file is not an image, is damaged, truncated or too large, or
            the box reaches outside of it.
    """
    return np.asarray(decoded(path, short_side, max_pixels).image)


def decoded(path: Path, short_side: int | None, max_pixels: int | None = None) -> Rgb:
    """Read an image as `decode` does, with the kind of pixels it had."""
    file, box = boxes.split(str(path))
    with _opened(Path(file), max_pixels, check=True) as image:
        found = upright(image)
        pixels = _cut(found.image, box)
        return found._replace(image=to_short_side(pixels, short_side))


def _cut(image: Image.Image, box: Box | None) -> Image.Image:
    if box is None:
        return image
    _check_box(box, image.height, image.width)
    return image.crop(box)


def _check_box(box: Box, height: int, width: int) -> None:
    if problem := box.problem(height, width):
        raise ValueError(problem)


def upright(image: Image.Image) -> Rgb:
    """Turn an image as its EXIF says and convert it to RGB.

    Raises:
        Exception: What Pillow raises of damaged files, and ValueError of values without a range.
    """
    turn = TURNS.get(_orientation(image))
    pixels, peak, scaled = to_rgb(image)
    return Rgb(pixels if turn is None else pixels.transpose(turn), peak, scaled)


def to_short_side(image: Image.Image, short_side: int | None) -> Image.Image:
    """Resize to `short_side` pixels by Pillow; None, or that very size, changes nothing."""
    if short_side is None:
        return image
    height, width = resized(image.height, image.width, short_side)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def decoded_size(
    path: Path, short_side: int | None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Read the (height, width) of `decode` from the file's header; of a box, its own."""
    file, box = boxes.split(str(path))
    with _opened(Path(file), max_pixels, check=False) as image:
        width, height = image.size
        if _orientation(image) in SIDEWAYS:
            width, height = height, width
        if box is not None:
            _check_box(box, height, width)
            height, width = box.bottom - box.top, box.right - box.left
    return (height, width) if short_side is None else resized(height, width, short_side)


def resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Scale (height, width) to a short side as torchvision's Resize does: the long side is floored.

    Departs: the long side is at most 32 times the short one, for images of 1 x N pixels.
    """
    longer = min(int(short_side * max(height, width) / min(height, width)), LONGEST * short_side)
    return (short_side, longer) if height <= width else (longer, short_side)


def limit(max_pixels: int | None) -> int:
    """Number of pixels above which images are refused."""
    return 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) if max_pixels is None else max_pixels


@contextmanager
def _opened(path: Path, max_pixels: int | None, check: bool) -> Iterator[ImageFile.ImageFile]:
    """Open an image; any error inside is raised as an UnreadableImageError that names the file.

    `check` verifies the checksums of a PNG, which Pillow does not do when decoding.
    """
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata; the pixels are still read
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries set it
        try:
            with open_regular(path) as file:
                image = _identified(file, path)
                _check_size(path, image.size, limit(max_pixels))
                yield image
                if check and image.format == "PNG":
                    _identified(file, path).verify()
        except UnreadableImageError:
            raise
        except Exception as error:  # Pillow's readers raise many types: OSError, struct.error, ...
            reason, broken = _reason(path, error)
            text = f"{path}: not a readable image: {reason}."
            raise UnreadableImageError(text, reason, broken) from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _identified(file: IO[bytes], path: Path) -> ImageFile.ImageFile:
    """Open `file` as Image.open does, restricted to `FORMATS`.

    Departs: no pixel limit, which in Pillow is process-wide.
    """
    file.seek(0)
    start, reason = file.read(HEAD), "its content has no known image format"
    lacking = _add_heif() if is_heif(start) else None
    for load_readers in (Image.preinit, Image.init):  # the usual readers, then all, which is slow
        load_readers()
        for name in filter(Image.OPEN.__contains__, FORMATS):
            factory, accepts = Image.OPEN[name]
            accepted = not accepts or accepts(start)
            if isinstance(accepted, str):
                raise UnidentifiedImageError(accepted)
            if accepted:
                try:
                    file.seek(0)
                    return factory(file, str(path))
                except (SyntaxError, IndexError, TypeError, struct.error) as error:
                    reason = f"a {name} file that is damaged or of an unknown kind ({error})"
    raise UnidentifiedImageError(lacking or reason)


def _add_heif() -> str | None:
    """Register the reader of HEIC, which Pillow does not have; return why it cannot be."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return 'a HEIC file, which needs another package: pip install "dmlray[heic]"'
    register_heif_opener()
    return None


def _check_size(path: Path, size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        reason = f"has more than {most:,} pixels ({size[0]:,} x {size[1]:,})"
        advice = "data.max_megapixels allows more"
        raise UnreadableImageError(f"{path}: {reason}: {advice}.", f"{reason}: {advice}", True)


def _reason(path: Path, error: Exception) -> tuple[str, bool]:
    """Describe an error, and whether the file's content is the cause."""
    if isinstance(error, MemoryError):
        return "it does not fit into memory", False
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, False
    if path.is_file() and not path.stat().st_size:
        return "the file is empty", True
    return " ".join(str(error).split()) or type(error).__name__, True


def _orientation(image: Image.Image) -> int:
    """EXIF orientation in the file's header: 1 is upright, 2 to 8 are in `TURNS`.

    Departs: Pillow also reads EXIF after the pixels of a PNG, which requires decoding them.
    """
    try:
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises many types; the pixels may still be intact
        return 1
