"""Crop, resize and normalise cached images into batches."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from dmlray.config_model import ConfigModel
from dmlray.data.batches import crop_boxes
from dmlray.data.cache.decode import resized
from dmlray.data.cache.image_cache import Cache
from dmlray.input_statistics import InputStatistics

Channels = tuple[float, float, float]


class Transform(ConfigModel):
    """How images are cropped for training and for evaluation."""

    resize: int | None = Field(
        None, ge=1, le=4096, description="short side of the training cache, pixels; null = raw"
    )
    approximate: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="short side of smaller images to cut training crops from instead of the "
        "originals, pixels; null = exact",
    )
    size: int = Field(224, ge=1, le=2048, description="side of the network's input, pixels")
    crop: Literal["random_resized", "random", "center", "none"] = Field(
        "random_resized", description="training crop; none squeezes the whole image to the input"
    )
    scale: tuple[float, float] = Field(
        (0.08, 1.0), description="random_resized: fraction of the area, low and high in (0, 1]"
    )
    ratio: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="random_resized: width / height, low and high, unitless"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a mirrored training image")
    rotation: float = Field(
        0.0, ge=0, le=180, description="largest random rotation before the training crop, degrees"
    )
    eval_resize: int | None = Field(
        256, ge=1, le=4096, description="short side before the centre crop, pixels; null = raw"
    )
    padding: int = Field(
        0, ge=0, le=512, description="random: pixels added on each side by repeating the edge"
    )
    mean: Channels | None = Field(
        None, description="subtracted, in the network's channel order and unit; none = its own"
    )
    std: Channels | None = Field(
        None, description="divided by, in the network's channel order and unit; none = its own"
    )

    @model_validator(mode="after")
    def _check(self) -> "Transform":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)} is not allowed: 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {list(self.ratio)} is not allowed: 0 < low <= high")
        if self.padding and self.crop != "random":
            raise ValueError(f"padding needs crop random, not {self.crop}")
        if self.std and min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)} is not allowed: each above 0")
        if self.approximate and (self.resize or self.crop not in ("random_resized", "none")):
            raise ValueError("approximate needs resize none, and crop random_resized or none")
        return self

    @property
    def train_short_side(self) -> int | None:
        """Short side of the cache that training reads, pixels; None = the originals."""
        return self.resize or self.approximate

    @property
    def eval_short_side(self) -> int | None:
        """Short side of the exact cache that evaluation reads, pixels; None = the originals."""
        return self.eval_resize

    @property
    def remark(self) -> str | None:
        """Remark for every score if images were not cropped as published."""
        if self.approximate is None:
            return None
        return f"training crops cut from images of short side {self.approximate}, not the originals"


def draw_boxes(
    heights: np.ndarray, widths: np.ndarray, transform: Transform, rng: np.random.Generator
) -> np.ndarray:
    """Draw a training crop for each of B images: (B, 4) int64 of top, left, height, width.

    A box may reach beyond its image, by padding or because the image is small.
    """
    if transform.crop == "random_resized":
        return crop_boxes.random_resized(heights, widths, transform.scale, transform.ratio, rng)
    if transform.crop == "none":
        zeros = np.zeros_like(heights)
        return np.stack([zeros, zeros, heights, widths], axis=1)
    sides = np.full_like(heights, transform.size)
    if transform.crop == "center":
        tops, lefts = (crop_boxes.centred(lengths, sides) for lengths in (heights, widths))
    else:
        tops = crop_boxes.anywhere(heights, sides, transform.padding, rng)
        lefts = crop_boxes.anywhere(widths, sides, transform.padding, rng)
    return np.stack([tops, lefts, sides, sides], axis=1)


def crop_train(
    cache: Cache,
    rows: np.ndarray,
    transform: Transform,
    rng: np.random.Generator,
    local: slice = slice(None),
) -> Tensor:
    """Crop images `rows` (B,) at random and mirror some: (B, 3, S, S) uint8.

    Only the `local` ones are cropped, but random numbers are drawn for all, so that a part equals
    that part of the whole batch.
    """
    sizes = cache.sizes(rows)
    drawn = draw_boxes(sizes[:, 0], sizes[:, 1], transform, rng)
    mirrored = (rng.random(len(rows)) < transform.flip)[local]
    angles = _draw_angles(len(rows), transform.rotation, rng)[local]
    batch, images = _empty(len(mirrored), transform.size)
    for index, (row, box) in enumerate(zip(rows[local], drawn[local], strict=True)):
        whole = _rotated(cache[row], angles[index])
        image = _resized(_cut(whole, box, "edge"), transform.size, transform.size)
        images[index] = image[:, ::-1] if mirrored[index] else image
    return batch


def crop_eval(cache: Cache, rows: np.ndarray, transform: Transform) -> Tensor:
    """Resize images `rows` (B,) and crop their centres: (B, 3, S, S) uint8.

    As torchvision's Resize and CenterCrop; smaller images are padded with zeros.
    """
    cached = (cache[row] for row in rows)
    return centre_crops(cached, len(rows), transform.eval_resize, transform.size)


def centre_crops(
    images: Iterable[np.ndarray], count: int, short_side: int | None, size: int
) -> Tensor:
    """Resize `count` images (H, W, 3) uint8 and cut their centres: (count, 3, size, size) uint8."""
    batch, crops = _empty(count, size)
    sides = np.array([size, size])
    for crop, whole in zip(crops, images, strict=True):
        image = resize_short_side(whole, short_side)
        corner = crop_boxes.centred(np.array(image.shape[:2]), sides)
        crop[:] = _cut(image, np.concatenate([corner, sides]), "zeros")
    return batch


def resize_short_side(image: np.ndarray, short_side: int | None) -> np.ndarray:
    """Resize (H, W, 3) uint8 to `short_side` pixels; None keeps the size."""
    size = image.shape[:2]
    if short_side is None or (target := resized(size[0], size[1], short_side)) == size:
        return image
    return _resized(image.copy(), *target)  # the cache is read-only, torch is not


def normalise(images: Tensor, statistics: InputStatistics) -> Tensor:
    """Map RGB pixels (B, 3, S, S) uint8 to (images * scale - mean) / std, float32.

    The result is channels-last in memory, in the network's channel order.
    """
    width, device = images.shape[3], images.device
    channels = (statistics.mean, statistics.std)
    centre, spread = (_row(tuple(numbers), width, device) for numbers in channels)
    return normalise_rows(images, centre, spread, statistics)


def normalise_rows(
    images: Tensor, centre: Tensor, spread: Tensor, statistics: InputStatistics
) -> Tensor:
    """Normalise as `normalise`, by numbers for each value of a row: `row_of` mean and of std."""
    count, _, height, width = images.shape
    pixels = (images.flip(1) if statistics.bgr else images).permute(0, 2, 3, 1)
    # Whole rows of pixels: three channels are too short for vector instructions.
    rows = pixels.reshape(count, height, 3 * width).float()
    rows.mul_(statistics.scale).sub_(centre).div_(spread)
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def row_of(channels: Sequence[float], width: int, device: torch.device | None = None) -> Tensor:
    """Repeat three numbers for each of `width` pixels: (3 * width,)."""
    return torch.tensor(channels, dtype=torch.float32, device=device).repeat(width)


def _draw_angles(count: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """Degrees (B,) in [-most, most]; without rotation no random numbers are drawn."""
    return rng.uniform(-most, most, count) if most else np.zeros(count)


def _rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate (H, W, 3) as torchvision's RandomRotation does: nearest neighbour, on black."""
    return np.asarray(Image.fromarray(image).rotate(degrees)) if degrees else image


@lru_cache(maxsize=32)  # copying to a device synchronises
def _row(channels: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    return row_of(channels, width, device)


def _cut(image: np.ndarray, box: np.ndarray, beyond: Literal["edge", "zeros"]) -> np.ndarray:
    """Copy box (top, left, height, width) of image (H, W, 3), filling pixels outside the image."""
    top, left, height, width = box.tolist()
    bottom, right = top + height, left + width
    if min(top, left) >= 0 and bottom <= image.shape[0] and right <= image.shape[1]:
        return image[top:bottom, left:right].copy()  # the cache is read-only, torch is not
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    inside = rows.clip(0, image.shape[0] - 1), columns.clip(0, image.shape[1] - 1)
    cut: np.ndarray = image[np.ix_(*inside)]
    if beyond == "zeros":
        cut[rows != inside[0]] = 0
        cut[:, columns != inside[1]] = 0
    return cut


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 bilinearly, antialiased, within one level of Pillow."""
    if image.shape[:2] == (height, width):
        return image
    # As torchvision does, without its import, which takes 90 MB in each process.
    # `view` instead of a new axis, whose stride of 0 would make torch repack the result.
    pixels = torch.from_numpy(image).view(1, *image.shape).permute(0, 3, 1, 2)
    small = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def _empty(count: int, size: int) -> tuple[Tensor, np.ndarray]:
    """An empty batch (B, 3, S, S) and a view of its memory as images (B, S, S, 3)."""
    images = torch.empty((count, size, size, 3), dtype=torch.uint8)
    return images.permute(0, 3, 1, 2), images.numpy()
