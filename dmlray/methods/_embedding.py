"""What a trained method keeps for inference: features -> unit embeddings, described as plain data.

The tensors of each module have the names that they have in the method's `Learner`, so that they
can be taken from its checkpoint; classes, proxies and losses are not needed.
B batch, F backbone width, D embedding.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.errors import ConfigError
from dmlray.losses.cosine import unit_rows
from dmlray.methods._compositor import Composition, Compositor, join
from dmlray.methods._relation import BranchInput, EdgeNorm, RelationHead

Size = Annotated[int, Field(ge=1, le=65_536)]
Mode = Literal["plain", "paper", "diva"]


class Features(ConfigModel):
    """The pooled features themselves."""

    kind: Literal["features"] = "features"

    def size(self, width: int) -> int:
        return width

    def build(self, width: int) -> nn.Module:
        return _Features()


class Linear(ConfigModel):
    """One linear layer."""

    kind: Literal["linear"] = "linear"
    dim: Size

    def size(self, width: int) -> int:
        return self.dim

    def build(self, width: int) -> nn.Module:
        return _Linear(width, self.dim)


class Relation(ConfigModel):
    """DRML's related branches."""

    kind: Literal["relation"] = "relation"
    dim: Size
    branches: Size
    branch_input: BranchInput
    edge_norm: EdgeNorm

    @model_validator(mode="after")
    def _whole_branches(self) -> "Relation":
        if self.dim % self.branches:
            raise ValueError(f"dim {self.dim} is not divisible by branches {self.branches}")
        return self

    def size(self, width: int) -> int:
        return self.dim

    def build(self, width: int) -> nn.Module:
        if self.branch_input == "chunk" and width % self.branches:
            problem = f"{self.branches} does not divide the backbone's width {width}"
            raise ConfigError("branches", [problem])
        return _Relation(self, width)


class Composites(ConfigModel):
    """DCML's sub-embeddings and composites; `discriminative_weight` is of DiVA's first head."""

    kind: Literal["composites"] = "composites"
    dim: Size
    sub_embeddings: Size
    composites: Size
    mode: Mode
    discriminative_weight: float = Field(ge=0)

    @model_validator(mode="after")
    def _four_heads(self) -> "Composites":
        if self.mode == "diva" and self.composites % 4:
            raise ValueError(f"composites {self.composites} are not divisible by diva's 4 heads")
        return self

    def size(self, width: int) -> int:
        return self.dim * (self.sub_embeddings if self.mode == "paper" else self.composites)

    def build(self, width: int) -> nn.Module:
        return _Composites(self, width)


EmbeddingHead = Features | Linear | Relation | Composites


class _Features(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return unit_rows(features)  # (B, F)


class _Linear(nn.Module):
    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, dim)

    def forward(self, features: Tensor) -> Tensor:
        return unit_rows(self.head(features))  # (B, D)


class _Relation(nn.Module):
    def __init__(self, config: Relation, width: int) -> None:
        super().__init__()
        self.head = RelationHead(
            width,
            config.dim,
            config.branches,
            branch_input=config.branch_input,
            edge_norm=config.edge_norm,
        )
        del self.head.decoder  # only a training needs it

    def forward(self, features: Tensor) -> Tensor:
        return unit_rows(self.head.embed(features))  # (B, D)


class _Composites(nn.Module):
    def __init__(self, config: Composites, width: int) -> None:
        super().__init__()
        self.mode, self.weight = config.mode, config.discriminative_weight
        self.compositor = Compositor(width, config.dim, config.sub_embeddings, config.composites)

    def forward(self, features: Tensor) -> Tensor:
        return composed(self.compositor(features), self.mode, self.weight)


def composed(composition: Composition, mode: Mode, discriminative_weight: float) -> Tensor:
    """Unit embeddings of DCML: (B, K D) in mode paper, else (B, M D)."""
    if mode == "diva":
        weights = (discriminative_weight, 1, 1, 1)
        heads = [unit_rows(head) for head in join(composition.composites, (1, 1, 1, 1))]
        return unit_rows(torch.cat([w * h for w, h in zip(weights, heads, strict=True)], 1))
    chosen = composition.sub_embeddings if mode == "paper" else composition.composites
    return unit_rows(chosen.flatten(1))
