"""Convert pixels of any Pillow mode to 8-bit RGB on white."""

from typing import NamedTuple

import numpy as np
from PIL import Image

SIXTEEN = 65_535  # the largest 16-bit value, mapped to 255
_SAMPLE_FORMAT, _UNSIGNED, _PHOTOMETRIC, _WHITE_IS_ZERO = 339, 1, 262, 0  # TIFF
# Pillow scales these modes to 8 bits, but not their transparent colour.
_COARSE = {"L;2": 255 // 3, "L;4": 255 // 15}


class Rgb(NamedTuple):
    """An 8-bit RGB image; `peak` is the largest value if it had 16 bits, else None.

    `scaled`: whether float or 32-bit values were scaled by their range.
    """

    image: Image.Image
    peak: int | None = None
    scaled: bool = False


def to_rgb(image: Image.Image) -> Rgb:
    """Convert an opened image of any mode; transparent pixels become white.

    16-bit values are divided by 257; float and 32-bit ones are scaled so that the file's smallest
    finite value becomes 0 and its largest 255.

    Raises:
        ValueError: If float or 32-bit values have no range to scale by.
        Exception: Any error of Pillow's decoders on damaged files.
    """
    raw = _raw_mode(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_sixteen(image, raw)
    if image.mode in ("F", "I"):
        grey = _by_own_range(_values(image))
        return Rgb(_grey_image(image, grey), scaled=True)
    peak = SIXTEEN // 255 * _largest_colour(image) if ";16" in raw else None
    return Rgb(_on_white(image, raw), peak)


def _raw_mode(image: Image.Image) -> str:
    """Pixel layout in the file, such as RGB;16B; only known before the pixels are loaded."""
    tile = getattr(image, "tile", None)  # of an image in memory: none
    details = tile[0].args if tile else ""
    mode = details[0] if isinstance(details, tuple) and details else details
    return mode if isinstance(mode, str) else ""


def _from_sixteen(image: Image.Image, raw: str) -> Rgb:
    values = np.asarray(image).clip(0, SIXTEEN).astype(np.uint32)
    if raw == "I;12":  # 12-bit file
        values = values * SIXTEEN // 4095
    grey = ((values + 128) // 257).astype(np.uint8)
    key = image.info.get("transparency")
    rgb = _grey_image(image, grey)
    if isinstance(key, int):
        rgb.paste("white", mask=Image.fromarray(values == key))
    return Rgb(rgb, int(values.max()))


def _values(image: Image.Image) -> np.ndarray:
    """Float or 32-bit values as float64; Pillow wraps unsigned ones above 2**31."""
    image.load()
    values = np.asarray(image)
    if image.mode == "I" and _tiff_tag(image, _SAMPLE_FORMAT, _UNSIGNED) == _UNSIGNED:
        values = values.view(np.uint32)
    return values.astype(np.float64)


def _by_own_range(values: np.ndarray) -> np.ndarray:
    """Scale to uint8 by the smallest and largest finite value; NaN becomes 0."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("none of its values is finite, so there is no range to scale by")
    low, high = finite.min(), finite.max()
    if low == high:
        raise ValueError(f"all its values are {low:g}, so there is no range to scale by")
    # Halved first: the difference of the largest floats overflows.
    values = (values / 2 - low / 2) / (high / 2 - low / 2) * 255
    scaled: np.ndarray = np.nan_to_num(values, nan=0).clip(0, 255).round().astype(np.uint8)
    return scaled


def _grey_image(image: Image.Image, grey: np.ndarray) -> Image.Image:
    if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts only 8-bit images
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")


def _tiff_tag(image: Image.Image, tag: int, missing: int | None = None) -> int | None:
    tags = getattr(image, "tag_v2", {})
    value = tags.get(tag, missing)
    return value[0] if isinstance(value, tuple) else value


def _largest_colour(image: Image.Image) -> int:
    colours = image.convert("RGBA") if image.mode.endswith("A") else image
    return int(np.asarray(colours)[..., :3].max())


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, int):
        image.info["transparency"] = key * _COARSE.get(raw, 1)
    elif isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "La":  # Pillow cannot convert it to other modes
        image = image.convert("LA")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    image.load()  # while the file is open: `convert` does not load an RGB image
    return image if image.mode == "RGB" else image.convert("RGB")
