"""A network without its classifier: normalised images -> pooled features.

B batch, F width, P positions of a feature map, T tokens.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dmlray.errors import ConfigError
from dmlray.input_statistics import InputStatistics

Pooling = Literal["avg", "max", "avg+max", "cls", "native"]
BatchNorm = Literal["train", "frozen_statistics", "frozen"]


class Network(NamedTuple):
    """A module that maps images to (B, F, H, W) or to tokens (B, T, F), and its input statistics.

    The first `prefix_tokens` tokens are not positions; the very first may be a class token.
    With `native` the module pools by itself, to the input (B, F) of its own classifier.
    """

    module: nn.Module
    width: int
    statistics: InputStatistics
    prefix_tokens: int = 0
    class_token: bool = False
    native: bool = False


class Trunk(nn.Module):
    """A network, its pooling, and optionally frozen BatchNorm layers.

    Args:
        pooling: `avg+max` adds both; `cls` takes the class token; `native` keeps the features of
            networks that pool by themselves.
        batchnorm: `frozen_statistics` freezes the running statistics, even after `.train()`, but
            trains the affine weights; `frozen` freezes both.
    """

    def __init__(
        self, network: Network, pooling: Pooling = "avg", batchnorm: BatchNorm = "train"
    ) -> None:
        super().__init__()
        _check("backbone.pooling", pooling, get_args(Pooling))
        _check("backbone.batchnorm", batchnorm, get_args(BatchNorm))
        if pooling == "cls" and not network.class_token:
            problem = "cls needs a network with a class token. Allowed here: avg, max, avg+max"
            raise ConfigError("backbone.pooling", [problem])
        if (pooling == "native") != network.native:
            problem = "native needs a network of timm. Allowed here: avg, max, avg+max"
            raise ConfigError("backbone.pooling", [problem])
        self.network = network.module
        self.width, self.statistics = network.width, network.statistics
        self.pooling, self.batchnorm = pooling, batchnorm
        self.prefix_tokens = network.prefix_tokens
        if batchnorm == "frozen":
            for norm in self._norms():
                norm.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, F); features are returned as they are."""
        if images.dim() == 2:  # computed before, see `backbone.frozen`
            return images
        maps = self.network(images)
        if self.pooling == "native":
            return maps  # type: ignore[no-any-return]
        if self.pooling == "cls":
            return maps[:, 0]  # type: ignore[no-any-return]
        if maps.dim() == 3:
            return pool(maps[:, self.prefix_tokens :].transpose(1, 2), self.pooling)
        return pool(maps.flatten(2), self.pooling)

    @torch.no_grad()
    def check_size(self, size: int) -> None:
        """Check that the network accepts images of `size` x `size` pixels, with one blank image.

        Raises:
            ConfigError: If it does not.
        """
        training = self.training
        try:
            features = self.eval()(torch.zeros(1, 3, size, size))
            problem = "" if features.isfinite().all() else "its features are not finite"
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
            problem = (str(error).splitlines() or [""])[0] or type(error).__name__
        finally:
            self.train(training)
        if problem:
            trained = f"Its weights were trained at {self.statistics.size}"
            text = f"{size} does not suit this backbone: {problem.rstrip('.')}. {trained}"
            raise ConfigError("data.transform.size", [text])

    def train(self, mode: bool = True) -> "Trunk":
        """Set the training mode, BatchNorm by `batchnorm`."""
        super().train(mode)
        if self.batchnorm != "train":
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm)]


def pool(positions: Tensor, pooling: Pooling) -> Tensor:
    """Reduce positions (B, F, P) to (B, F)."""
    if pooling == "avg":
        return positions.mean(-1)
    # `max` instead of `amax`: as in max pooling, one of several equal maxima gets the gradient.
    largest = positions.max(-1).values
    return largest if pooling == "max" else positions.mean(-1) + largest


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(key, [f"{value!r} is not allowed. Allowed: {', '.join(allowed)}"])
