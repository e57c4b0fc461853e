"""DRML: branches that each train on the images they reconstruct best, and their relations.

Source: Zheng et al., ICCV 2021; code zbr17/DRML of 2021-09-06. Defaults are the released head with
the settings of the later README; `branch_input: full`, `detach_nodes_for_final: true`,
`edge_norm: linear` and `recon: l2` follow the paper.
Departs: clipping, if enabled, acts in every step (the authors' only in the first).
B batch, C classes, K branches, D embedding.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Float, Space
from dmlray.errors import ConfigError
from dmlray.losses.cosine import pairwise_cosines, unit_rows
from dmlray.losses.proxy_anchor import proxy_anchor
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup
from dmlray.methods._drml_published import PUBLISHED
from dmlray.methods._embedding import Relation
from dmlray.methods._head import trainable
from dmlray.methods._relation import BranchInput, EdgeNorm, Recon, RelationHead, RelationOutputs

__all__ = ["PUBLISHED", "SPACE", "Config", "Learner"]


class Config(ConfigModel):
    """Settings of DRML."""

    dim: int = Field(512, ge=1, le=8192, description="embedding size of all branches together")
    branches: int = Field(
        4, ge=1, le=64, description="branches; must divide dim and the backbone's width"
    )
    margin: float = Field(0.2, ge=0, lt=1, description="slack on the cosine, unitless")
    alpha: float = Field(64.0, gt=0, le=1024, description="inverse temperature, unitless")
    final_weight: float = Field(
        10.0, ge=0, le=1000, description="weight of the related embedding's loss, unitless"
    )
    recon_weight: float = Field(
        1.0, ge=0, le=1000, description="weight of the reconstruction error, unitless"
    )
    head_lr_factor: float = Field(
        20.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    proxy_lr_factor: float = Field(
        200.0, gt=0, le=10_000, description="learning rate of the proxies / the run's, unitless"
    )
    branch_input: BranchInput = Field(
        "chunk", description="input of a branch: its part of the feature, or all (the paper)"
    )
    detach_nodes_for_final: bool = Field(
        False, description="no gradient of the final loss in branches and trunk (the paper)"
    )
    edge_norm: EdgeNorm = Field(
        "relu_l1", description="relations: positive or raw scores (the paper), divided by sums"
    )
    recon: Recon = Field(
        "mse", description="reconstruction error: mean square, or length (the paper)"
    )
    recipe: Literal["readme2022", "release2021"] = Field(
        "readme2022",
        description="published recipe that provides the defaults; no other effect",
    )

    @model_validator(mode="after")
    def _whole_branches(self) -> "Config":
        if self.dim % self.branches:
            raise ValueError(
                f"dim {self.dim} is not divisible by branches {self.branches}. "
                f"Allowed: a multiple of {self.branches}"
            )
        return self


# The reconstruction's weight is not searched: Adam is invariant to it.
SPACE: Space = {
    "method.branches": Choice((1, 2, 4, 8)),
    "method.margin": Float(0.0, 0.35),
    "method.alpha": Float(16.0, 64.0, log=True),
    "method.final_weight": Float(0.3, 30.0, log=True),
    "method.head_lr_factor": Float(2.0, 60.0, log=True),
    "method.proxy_lr_factor": Float(20.0, 2000.0, log=True),
    "method.detach_nodes_for_final": Choice((False, True)),
    "method.branch_input": Choice(("chunk", "full")),
    "optimizer.lr": Float(1e-5, 3e-4, log=True),
    "optimizer.weight_decay": Float(1e-5, 1e-3, log=True),
    "optimizer.step_epochs": Choice((1, 5, 10, 20)),
    "optimizer.gamma": Float(0.25, 0.7),
    "budget.warmup_epochs": Choice((0, 1, 5)),
    "data.batch_size": Choice((90, 120, 180)),
}


class Learner(_base.Learner):
    """Trunk, relation head, a proxy per class for each branch and for the final embedding."""

    chosen: Tensor

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        if config.branch_input == "chunk" and width % config.branches:
            raise ConfigError("method.branches", [_does_not_divide(config, width)])
        self.config = config
        self.trunk = trunk
        self.head = RelationHead(
            width,
            config.dim,
            config.branches,
            branch_input=config.branch_input,
            detach_nodes=config.detach_nodes_for_final,
            edge_norm=config.edge_norm,
            recon=config.recon,
        )
        size = config.dim // config.branches
        branch_proxies = torch.randn(config.branches, classes, size) * (3 * size) ** -0.5
        self.branch_proxies = nn.Parameter(branch_proxies)
        bound = config.dim**-0.5
        self.final_proxies = nn.Parameter(torch.empty(classes, config.dim).uniform_(-bound, bound))
        self.register_buffer("chosen", torch.zeros(config.branches).long(), persistent=False)

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the branches from principal directions of the frozen features (N, F)."""
        self.head.initialise(features)

    def start_epoch(self, epoch: int) -> None:
        """Count the chosen branches anew."""
        self.chosen.zero_()

    def forward(self, batch: Batch) -> Outputs:
        """Return `nodes` (B, K, D / K) of unit length, `embeddings` (B, D) and `errors` (B, K)."""
        outputs: RelationOutputs = self.head(self.trunk(batch.images))
        return outputs._asdict()

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss terms by name; the branch of the least error is trained."""
        config, errors = self.config, outputs["errors"]
        branches = torch.arange(config.branches, device=errors.device)
        selected = errors.argmin(1)[:, None] == branches  # (B, K)
        self.chosen += selected.sum(0)
        final = self._anchor(outputs["embeddings"], self.final_proxies, labels)
        return {
            **{
                f"branch_{k}": self._anchor(nodes, self.branch_proxies[k], labels, selected[:, k])
                for k, nodes in enumerate(outputs["nodes"].unbind(1))
            },
            "final": config.final_weight * final,
            "recon": config.recon_weight * errors.mean(),
        }

    def _anchor(
        self, embeddings: Tensor, proxies: Tensor, labels: Tensor, selected: Tensor | None = None
    ) -> Tensor:
        """Proxy-Anchor over all images, or over those `selected` (B,): a scalar, in nats."""
        cosines = pairwise_cosines(embeddings, proxies)
        if selected is not None:  # label -1 and cosine -inf exclude an image from the loss
            cosines = cosines.masked_fill(~selected[:, None], -torch.inf)
            labels = labels.masked_fill(~selected, -1)
        return proxy_anchor(cosines, labels, self.config.margin, self.config.alpha)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head.embed(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, head and proxies."""
        proxy_lr_factor = self.config.proxy_lr_factor
        return [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
            ParameterGroup("branch_proxies", [self.branch_proxies], proxy_lr_factor),
            ParameterGroup("final_proxies", [self.final_proxies], proxy_lr_factor),
        ]

    def metrics(self) -> dict[str, float]:
        """Share of this epoch's images per branch; a share of 1 is a collapse."""
        shares = self.chosen / self.chosen.sum().clamp(min=1)
        return {f"branch_{k}_share": share for k, share in enumerate(shares.tolist())}


def embedding_head(config: Config, size: int) -> Relation:
    """Describe the head of embeddings (B, size)."""
    return Relation(
        dim=size,
        branches=config.branches,
        branch_input=config.branch_input,
        edge_norm=config.edge_norm,
    )


def _does_not_divide(config: Config, width: int) -> str:
    fitting = [k for k in range(1, 65) if width % k == 0 and config.dim % k == 0]
    return (
        f"{config.branches} does not divide the backbone's width {width}. "
        f"Allowed with dim {config.dim}: {', '.join(map(str, fitting))}"
    )
