"""The smallest trunk, for tests of what comes after it."""

from torch import nn


class ToyTrunk(nn.Sequential):
    """Images (B, 3, S, S) -> features (B, F): one linear layer."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * side * side, width))
