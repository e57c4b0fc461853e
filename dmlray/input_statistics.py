"""Normalisation of a network's input."""

from typing import NamedTuple


class InputStatistics(NamedTuple):
    """Normalisation of a network's input: (value * scale - mean) / std per channel.

    Attributes:
        mean, std: Per channel, in the order after `bgr`.
        scale: Factor of the uint8 value.
        bgr: Whether the channels are reversed first.
        size: Side of the images that the weights were trained on, in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    bgr: bool = False
    size: int = 224
