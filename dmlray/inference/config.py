"""What a model is besides its tensors: plain data, as `config.json` of a model folder holds it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from dmlray.backbones import Trunk
from dmlray.backbones.trunk import Pooling
from dmlray.config_model import ConfigModel
from dmlray.data.batches.augment import Transform
from dmlray.input_statistics import InputStatistics
from dmlray.methods import EmbeddingHead
from dmlray.plans.ensemble import MOST_MEMBERS
from dmlray.scores import Scores

_Positive = Annotated[float, Field(gt=0)]
_Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class Crop(ConfigModel):
    """How an image becomes (size, size) pixels: its short side resized, its centre cut."""

    short_side: int | None = Field(ge=1, le=4096)
    resized_by: Literal["pillow", "torch"]
    size: int = Field(ge=1, le=2048)


class Branch(ConfigModel):
    """One network: crop -> unit embedding; `weight` is the factor of its cosines among several.

    Pixels are normalised as (value * scale - mean) / std, blue first with `bgr`.
    """

    crop: Crop
    mean: _Three
    std: Annotated[tuple[_Positive, ...], Field(min_length=3, max_length=3)]
    scale: _Positive
    bgr: bool
    backbone: str = Field(min_length=1, max_length=200)
    pooling: Pooling
    head: EmbeddingHead = Field(discriminator="kind")
    weight: _Positive = 1.0

    @property
    def statistics(self) -> InputStatistics:
        """How its pixels are normalised."""
        return InputStatistics(self.mean, self.std, self.scale, self.bgr, self.crop.size)


class ModelConfig(ConfigModel):
    """Branches whose unit embeddings are laid side by side, normalised and perhaps projected.

    `projection`: dimensions that PCA keeps. `precision`: what GPUs compute in, as in the training.
    `settings`: the experiment of the first branch; none where nothing was trained.
    """

    format: Literal[1] = 1  # raised when this version could not read it
    dmlray: str
    dimension: int = Field(ge=1)
    branches: list[Branch] = Field(min_length=1, max_length=MOST_MEMBERS)
    projection: int | None = Field(None, ge=1)
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "float32"
    max_pixels: int = Field(ge=1, le=10**10)
    scores: Scores | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def crops(self) -> list[Crop]:
        """The different crops that the branches take, in order of appearance."""
        return list(dict.fromkeys(branch.crop for branch in self.branches))


def crop_of(transform: Transform) -> Crop:
    """How evaluation under `transform` cuts images."""
    by_pillow = transform.train_short_side is not None  # see `open_eval_cache`
    return Crop(
        short_side=transform.eval_short_side,
        resized_by="pillow" if by_pillow else "torch",
        size=transform.size,
    )


def branch_of(
    trunk: Trunk, backbone: str, transform: Transform, head: EmbeddingHead, weight: float = 1.0
) -> Branch:
    """Describe a trained trunk and head."""
    statistics = trunk.statistics
    return Branch(
        crop=crop_of(transform),
        mean=transform.mean or statistics.mean,
        std=transform.std or statistics.std,
        scale=statistics.scale,
        bgr=statistics.bgr,
        backbone=backbone,
        pooling=trunk.pooling,
        head=head,
        weight=weight,
    )
