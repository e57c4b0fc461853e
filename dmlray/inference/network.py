"""Crops -> unit embeddings, in one module: normalisation, networks, concatenation, projection.

B batch, S side of a crop, D embedding of a branch, P dimensions that a projection keeps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray import backbones
from dmlray.backbones import Trunk
from dmlray.data.batches.augment import normalise_rows, row_of
from dmlray.errors import DataError
from dmlray.inference.config import Branch, ModelConfig


class BranchNetwork(nn.Module):
    """Crops (B, 3, S, S) uint8 RGB -> unit rows (B, D)."""

    centre: Tensor
    spread: Tensor

    def __init__(self, config: Branch, trunk: Trunk) -> None:
        super().__init__()
        self.statistics = config.statistics
        self.trunk = trunk
        self.head = config.head.build(trunk.width)
        for name, channels in (("centre", config.mean), ("spread", config.std)):
            row = row_of(channels, config.crop.size)
            self.register_buffer(name, row, persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Embed crops (B, 3, S, S) uint8 RGB as unit rows (B, D)."""
        images = normalise_rows(crops, self.centre, self.spread, self.statistics)
        embeddings: Tensor = self.head(self.trunk(images))
        return embeddings


class ProjectionLayer(nn.Module):
    """Rows (B, S) -> their projection (B, P) of unit length, computed in float64."""

    mean: Tensor
    directions: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(inputs, outputs, dtype=torch.float64))

    def forward(self, rows: Tensor) -> Tensor:
        """Project rows (B, S) to unit rows (B, P) float32."""
        return F.normalize((rows.double() - self.mean) @ self.directions).float()


class Network(nn.Module):
    """All branches of a model; `forward` takes one batch for each of `config.crops`."""

    def __init__(self, config: ModelConfig, trunks: list[Trunk]) -> None:
        super().__init__()
        pairs = zip(config.branches, trunks, strict=True)
        self.branches = nn.ModuleList(BranchNetwork(branch, trunk) for branch, trunk in pairs)
        self.inputs = [config.crops.index(branch.crop) for branch in config.branches]
        self.factors = [branch.weight**0.5 for branch in config.branches]
        width = sum(
            branch.head.size(trunk.width)
            for branch, trunk in zip(config.branches, trunks, strict=True)
        )
        kept = config.projection
        self.dimension = kept or width
        self.projection = ProjectionLayer(width, kept) if kept else None
        # As a learner is laid out in memory, so that numbers are the same.
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, *crops: Tensor) -> Tensor:
        """Unit rows (B, D) of crops (B, 3, S, S) uint8 RGB."""
        parts = [
            branch(crops[number]) for branch, number in zip(self.branches, self.inputs, strict=True)
        ]
        if len(parts) == 1 and self.projection is None:
            return parts[0]  # type: ignore[no-any-return]
        factors = zip(parts, self.factors, strict=True)
        rows = torch.cat([part if factor == 1 else part * factor for part, factor in factors], 1)
        return F.normalize(rows) if self.projection is None else self.projection(rows)


def build(config: ModelConfig) -> Network:
    """Build the network of a model, with tensors that are to be filled.

    Raises:
        ConfigError: If a backbone or its pooling does not exist.
    """
    trunks = [
        backbones.build(branch.backbone, "none", branch.pooling) for branch in config.branches
    ]
    return Network(config, trunks)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors`, which must be those of `network` by name and shape.

    Raises:
        DataError: If they are not, or are not finite.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if problem := shape_problem(network, shapes):
        raise DataError(f"{source}: {problem}")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DataError(f"{source}: {name} holds NaN or infinite numbers")
    network.load_state_dict(dict(tensors))


def shape_problem(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """How tensors of these shapes differ from those of `network`, if they do."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(wanted.keys() ^ shapes.keys()):
        return f"{name} is missing" if name in wanted else f"{name} is no tensor of its network"
    for name, shape in wanted.items():
        if shapes[name] != shape:
            return f"{name} has shape {shapes[name]}. Allowed: {shape}"
    return None
