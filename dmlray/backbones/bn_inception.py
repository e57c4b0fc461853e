"""BN-Inception, the trunk of DRML, RCDML, Proxy-Anchor and the Reality Check.

Source: Ioffe and Szegedy, arXiv 1502.03167, appendix; names and layers of the Caffe network as in
the Cadene collection, so that its public weights fit.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmlray.backbones.download import fetched
from dmlray.backbones.state_dicts import State
from dmlray.backbones.trunk import Network
from dmlray.backbones.weights import is_file, load_file
from dmlray.input_statistics import InputStatistics

ADDRESS = "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth"
STATISTICS = InputStatistics((104.0, 117.0, 128.0), (1.0, 1.0, 1.0), scale=1.0, bgr=True)
"""Caffe's: blue, green and red in 0..255."""


class Block(NamedTuple):
    """Widths of four branches; a block without `plain` and `projection` has stride 2."""

    name: str
    plain: int
    single: tuple[int, int]
    double: tuple[int, int]
    projection: int
    largest: bool = False  # max pooling in the pooling branch, else average pooling

    @property
    def stride(self) -> int:
        """2 for a block that halves the map, else 1."""
        return 1 if self.plain else 2


BLOCKS = (
    Block("inception_3a", 64, (64, 64), (64, 96), 32),
    Block("inception_3b", 64, (64, 96), (64, 96), 64),
    Block("inception_3c", 0, (128, 160), (64, 96), 0, largest=True),
    Block("inception_4a", 224, (64, 96), (96, 128), 128),
    Block("inception_4b", 192, (96, 128), (96, 128), 128),
    Block("inception_4c", 160, (128, 160), (128, 160), 128),
    Block("inception_4d", 96, (128, 192), (160, 192), 128),
    Block("inception_4e", 0, (128, 192), (192, 256), 0, largest=True),
    Block("inception_5a", 352, (192, 320), (160, 224), 128),
    Block("inception_5b", 352, (192, 320), (192, 224), 128, largest=True),
)


def network(name: str, weights: str) -> Network:
    """Build the network up to its last feature map.

    Raises:
        DataError: If the weights cannot be downloaded, or the file does not fit.
    """
    module = BNInception()
    if weights != "none":
        path = Path(weights) if is_file(weights) else fetched(name, ADDRESS)
        load_file(module, path, spare=("last_linear.",), renames=[_with_vectors])
    return Network(module, module.width, STATISTICS)


class BNInception(nn.Module):
    """Images (B, 3, H, W) -> feature map (B, 1024, about H / 32, about W / 32).

    Departs: BatchNorm's momentum is PyTorch's 0.1, equal to Caffe's 0.9; some ports use 0.9.
    """

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", 3, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        self.width = 192
        for block in BLOCKS:
            self.width = self._add_block(block, self.width)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 1024, H / 32, W / 32)."""
        maps = _halved(self._chain(images, "conv1_7x7_s2"))
        maps = _halved(self._chain(maps, "conv2_3x3_reduce", "conv2_3x3"))
        for block in BLOCKS:
            maps = self._mixed(block, maps)
        return maps

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def _add_block(self, block: Block, inputs: int) -> int:
        """Add the branches in the order of the public file; return their total width."""
        name, (reduced, single), (narrow, double) = block.name, block.single, block.double
        if block.plain:
            self._add(f"{name}_1x1", inputs, block.plain, 1)
        self._add(f"{name}_3x3_reduce", inputs, reduced, 1)
        self._add(f"{name}_3x3", reduced, single, 3, block.stride)
        self._add(f"{name}_double_3x3_reduce", inputs, narrow, 1)
        self._add(f"{name}_double_3x3_1", narrow, double, 3)
        self._add(f"{name}_double_3x3_2", double, double, 3, block.stride)
        if block.projection:
            self._add(f"{name}_pool_proj", inputs, block.projection, 1)
        return block.plain + single + double + (block.projection or inputs)

    def _mixed(self, block: Block, maps: Tensor) -> Tensor:
        name, double = block.name, f"{block.name}_double_3x3"
        branches = [
            self._chain(maps, f"{name}_3x3_reduce", f"{name}_3x3"),
            self._chain(maps, f"{double}_reduce", f"{double}_1", f"{double}_2"),
            _pooled(block, maps),
        ]
        if block.plain:
            branches.insert(0, self._chain(maps, f"{name}_1x1"))
        if block.projection:
            branches[-1] = self._chain(branches[-1], f"{name}_pool_proj")
        return torch.cat(branches, dim=1)

    def _chain(self, maps: Tensor, *names: str) -> Tensor:
        for name in names:
            norm = self.get_submodule(f"{name}_bn")
            maps = F.relu(norm(self.get_submodule(name)(maps)), inplace=True)
        return maps


def _pooled(block: Block, maps: Tensor) -> Tensor:
    if block.stride == 2:
        return _halved(maps)
    if block.largest:
        return F.max_pool2d(maps, 3, stride=1, padding=1)
    return F.avg_pool2d(maps, 3, stride=1, padding=1)


def _halved(maps: Tensor) -> Tensor:
    # Unpadded and rounded up as in Caffe; PyTorch's usual padding of 1 gives other values.
    return F.max_pool2d(maps, 3, stride=2, ceil_mode=True)


def _with_vectors(state: State) -> State:
    # The public file stores BatchNorm's tensors as (1, C).
    return {k: t[0] if t.dim() == 2 and len(t) == 1 else t for k, t in state.items()}
