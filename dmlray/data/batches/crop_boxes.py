"""Positions and sizes of crops in pixels, for B images at once."""

import numpy as np

ATTEMPTS = 10


def random_resized(
    heights: np.ndarray,
    widths: np.ndarray,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw boxes (B, 4) of top, left, height, width with random area and aspect ratio.

    Source: torchvision's RandomResizedCrop.get_params, the same distribution.

    Args:
        heights: Heights (B,) of the images, pixels.
        widths: Widths (B,) of the images, pixels.
        scale: Fraction of the area, uniform.
        ratio: Width / height, log-uniform.
        rng: Source of the draws.
    """
    shape = (ATTEMPTS, len(heights))
    areas = heights * widths * rng.uniform(*scale, size=shape)
    shapes = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), size=shape))
    tall, wide = np.rint(np.sqrt(areas / shapes)), np.rint(np.sqrt(areas * shapes))
    fits = (tall > 0) & (tall <= heights) & (wide > 0) & (wide <= widths)  # (attempts, B)
    first = fits.argmax(axis=0), np.arange(len(heights))
    fitted = fits[first]
    whole_tall, whole_wide = _largest(heights, widths, ratio)
    tall = np.where(fitted, tall[first], whole_tall).astype(np.int64)
    wide = np.where(fitted, wide[first], whole_wide).astype(np.int64)
    tops, lefts = rng.integers(heights - tall + 1), rng.integers(widths - wide + 1)
    tops = np.where(fitted, tops, (heights - tall) // 2)
    lefts = np.where(fitted, lefts, (widths - wide) // 2)
    return np.stack([tops, lefts, tall, wide], axis=1)


def anywhere(
    lengths: np.ndarray, sizes: np.ndarray, padding: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw starts (B,) of intervals within the padded lengths; centre those that do not fit."""
    slack = lengths + 2 * padding - sizes
    starts = rng.integers(np.maximum(slack, 0) + 1) - padding
    return np.where(slack >= 0, starts, centred(lengths, sizes))


def centred(lengths: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Starts (B,) of centred intervals, also negative, rounded as in torchvision's CenterCrop."""
    inside = np.rint((lengths - sizes) / 2).astype(np.int64)
    beyond: np.ndarray = -((sizes - lengths) // 2)
    return np.where(lengths >= sizes, inside, beyond)


def _largest(
    heights: np.ndarray, widths: np.ndarray, ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of the largest box of an allowed ratio: the fallback if no draw fits."""
    tall = np.minimum(heights, np.rint(widths / ratio[0]))
    wide = np.minimum(widths, np.rint(heights * ratio[1]))
    return np.maximum(tall, 1), np.maximum(wide, 1)
