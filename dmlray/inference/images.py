"""Images of any kind -> crops, by the code that makes the crops of evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from dmlray.data.batches.augment import centre_crops
from dmlray.data.cache.decode import UnreadableImageError, decoded, to_short_side, upright
from dmlray.errors import DataError
from dmlray.inference.config import Crop
from dmlray.local_paths import local_path

ImageLike = str | Path | Image.Image | np.ndarray  # arrays (H, W, 3) uint8 RGB


def crop_all(
    images: Sequence[ImageLike], crops: Sequence[Crop], max_pixels: int
) -> tuple[Tensor, ...]:
    """Each of `crops` of B images: (B, 3, S, S) uint8 RGB.

    Raises:
        DataError: If an image cannot be read.
    """
    pixels = [read_image(image, max_pixels) for image in images]
    return tuple(_cropped(pixels, crop) for crop in crops)


def read_image(image: ImageLike, max_pixels: int) -> Image.Image:
    """Decode an image, turned upright, as 8-bit RGB.

    Raises:
        UnreadableImageError: If a file is no image, is damaged or has too many pixels.
        DataError: If an array or an opened image is no image of RGB.
    """
    if isinstance(image, str | Path):
        return decoded(_path(image), None, max_pixels).image
    if isinstance(image, Image.Image):
        return _upright(image)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{type(image).__name__} is no image. Allowed: {_ALLOWED}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"array {image.shape} of {image.dtype} is no image. Allowed: {_ALLOWED}")
    return Image.fromarray(image)


_ALLOWED = "paths, Pillow's images, and arrays (height, width, 3) of uint8"


def _cropped(pixels: Sequence[Image.Image], crop: Crop) -> Tensor:
    side = crop.short_side if crop.resized_by == "pillow" else None
    arrays = (np.asarray(to_short_side(image, side)) for image in pixels)
    return centre_crops(arrays, len(pixels), crop.short_side, crop.size)


def _path(given: str | Path) -> Path:
    try:
        return local_path(given)
    except ValueError as error:
        raise DataError(str(error)) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return upright(image).image
    except Exception as error:  # Pillow decodes a lazily opened file only now
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"image cannot be read: {reason}.", reason, True) from error
