"""How a network's input is normalised."""

from typing import NamedTuple


class InputStatistics(NamedTuple):
    """Normalisation of a network's input: (value * scale - mean) / std per channel.

    `scale` multiplies the uint8 value, `bgr` reverses the channels first (`mean` and `std` follow
    that order), `size` is the side in pixels at which the weights were trained.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    bgr: bool = False
    size: int = 224
