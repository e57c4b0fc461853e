"""From cached images to the network's input: boxes, crops, flips, normalisation."""

import math
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from dmlray.knobs import Knobs

_ATTEMPTS = 10  # of a random box before the central one, as in torchvision


class Transform(Knobs):
    """How images are cut, in training and in tests."""

    resize: int | None = Field(
        None, ge=8, le=4096, description="short side before training crops, pixels; null: raw"
    )
    size: int = Field(224, ge=8, le=2048, description="side of the network's input, pixels")
    crop: Literal["random_resized", "random", "center", "none"] = Field(
        "random_resized", description="training crop; none squeezes the whole image"
    )
    scale: tuple[float, float] = Field(
        (0.08, 1.0), description="area of a random_resized crop, fraction of the image"
    )
    ratio: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="width / height of a random_resized crop, unitless"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    padding: int = Field(
        0, ge=0, le=1024, description="pixels of repeated edge around a random crop"
    )
    eval_resize: int | None = Field(
        256, ge=8, le=4096, description="short side before the central test crop, pixels"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Transform":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"scale: {list(self.scale)} is not allowed. Allowed: 0 < low <= high <= 1"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: {list(self.ratio)} is not allowed. Allowed: 0 < low <= high")
        return self


class Images(Protocol):
    """Row -> (H, W, 3) uint8."""

    def __getitem__(self, row: int) -> np.ndarray: ...


def draw_boxes(
    heights: np.ndarray, widths: np.ndarray, transform: Transform, rng: np.random.Generator
) -> np.ndarray:
    """Boxes (B, 4) of top, left, height, width for images of these sizes."""
    if transform.crop == "none":
        return np.stack([0 * heights, 0 * widths, heights, widths], 1)
    if transform.crop == "random_resized":
        return _resized_boxes(heights, widths, transform, rng)
    sides = np.full_like(heights, transform.size)
    room = np.stack([heights - sides, widths - sides], 1)
    if transform.crop == "center":
        corners = np.rint(room / 2).astype(np.int64)
    else:
        corners = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
    return np.concatenate([corners, sides[:, None], sides[:, None]], 1)


def _resized_boxes(
    heights: np.ndarray, widths: np.ndarray, transform: Transform, rng: np.random.Generator
) -> np.ndarray:
    """The distribution of torchvision's RandomResizedCrop: the first attempt that fits."""
    shape = (len(heights), _ATTEMPTS)
    area = (heights * widths)[:, None] * rng.uniform(*transform.scale, shape)
    ratio = np.exp(rng.uniform(*np.log(transform.ratio), shape))
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w > 0) & (w <= widths[:, None]) & (h > 0) & (h <= heights[:, None])
    first = np.arange(len(heights)), fits.argmax(1)
    central = _central_boxes(heights, widths, transform.ratio)
    size = np.where(fits.any(1)[:, None], np.stack([h[first], w[first]], 1), central[:, 2:])
    room = np.stack([heights, widths], 1) - size
    corner = np.floor(rng.uniform(size=room.shape) * (room + 1))
    corner = np.where(fits.any(1)[:, None], corner, central[:, :2])
    return np.concatenate([corner, size], 1).astype(np.int64)


def _central_boxes(
    heights: np.ndarray, widths: np.ndarray, ratio: tuple[float, float]
) -> np.ndarray:
    """The largest central box within the ratios, where no attempt fitted."""
    shape = widths / heights
    h = np.where(shape < ratio[0], np.rint(widths / ratio[0]), heights)
    w = np.where(shape > ratio[1], np.rint(heights * ratio[1]), widths)
    return np.stack([(heights - h) // 2, (widths - w) // 2, h, w], 1)


def crop_train(
    images: Images, rows: np.ndarray, transform: Transform, rng: np.random.Generator
) -> Tensor:
    """Cut a random box of each image: (B, 3, S, S) uint8."""
    whole = [_padded(images[row], transform) for row in rows]
    sizes = np.array([image.shape[1:] for image in whole])
    boxes = draw_boxes(sizes[:, 0], sizes[:, 1], transform, rng)
    flips = rng.uniform(size=len(rows)) < transform.flip
    cut = [_cut(image, box, transform.size) for image, box in zip(whole, boxes, strict=True)]
    return torch.stack(
        [image.flip(-1) if flip else image for image, flip in zip(cut, flips, strict=True)]
    )


def crop_eval(images: Images, rows: np.ndarray, transform: Transform) -> Tensor:
    """Short side to `eval_resize`, then the central square: (B, 3, S, S) uint8."""
    size = [transform.size, transform.size]
    cut = []
    for row in rows:
        image = _tensor(images[row])
        if transform.crop == "none":
            image = tv.resize(image, size, antialias=True)
        elif transform.eval_resize and min(image.shape[1:]) != transform.eval_resize:
            image = tv.resize(image, [transform.eval_resize], antialias=True)
        cut.append(tv.center_crop(image, size))
    return torch.stack(cut)


def normalise(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], scale: float, bgr: bool
) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 (value * scale - mean) / std, channels reversed for bgr.

    mean and std stand in the network's own channel order.
    """
    if bgr:
        images = images.flip(1)
    means = torch.tensor(mean, device=images.device).view(1, 3, 1, 1)
    stds = torch.tensor(std, device=images.device).view(1, 3, 1, 1)
    return (images.float() * scale - means) / stds


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W); a copy, for the cache cannot be written to."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _padded(image: np.ndarray, transform: Transform) -> Tensor:
    """With its edges repeated where a random crop may reach, at least to the crop's size."""
    tensor = _tensor(image)
    if transform.crop not in ("random", "center"):
        return tensor
    lacks = [max(0, math.ceil((transform.size - side) / 2)) for side in tensor.shape[1:]]
    extra = transform.padding if transform.crop == "random" else 0
    y, x = (max(lack, extra) for lack in lacks)
    return F.pad(tensor[None].float(), (x, x, y, y), "replicate")[0].byte() if x or y else tensor


def _cut(image: Tensor, box: np.ndarray, size: int) -> Tensor:
    top, left, height, width = (int(side) for side in box)
    cut = image[:, top : top + height, left : left + width]
    return cut if (height, width) == (size, size) else tv.resize(cut, [size, size], antialias=True)
