"""DCML: each composite of sub-embeddings learns one task; `mode: diva` has DiVA's four tasks.

Source: Zheng et al., CVPR 2021, code wzzheng/DCML at 01a7220; Milbich et al., ECCV 2020, arXiv
2004.13458 (DiVA). B batch, C classes, K sub-embeddings, M composites, D width of each.
"""

from functools import partial

import torch
from torch import Tensor, nn

from dmlray.errors import ConfigError
from dmlray.losses.cosine import unit_rows
from dmlray.losses.fast_moco import fast_moco
from dmlray.losses.self_reinforced import self_reinforced
from dmlray.losses.separation import Separation
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup
from dmlray.methods._compositor import Compositor, join
from dmlray.methods._dcml_settings import PUBLISHED, SPACE, Config
from dmlray.methods._embedding import Composites, composed
from dmlray.methods._head import trainable
from dmlray.methods._momentum_encoder import FeatureQueue, MomentumEncoder
from dmlray.methods._triplets import (
    Triplets,
    by_distance,
    class_shared,
    intra_class,
    margin_cost,
)

__all__ = ["PUBLISHED", "SPACE", "Config", "Learner", "embedding_head"]

_HEADS = ("discriminative", "selfsimilarity", "shared", "intra")
_ONE_VIEW = "diva needs two views of each image and got one. Allowed here: plain, paper"


class Learner(_base.Learner):
    """Trunk, sub-embeddings, compositors, and a boundary per class for each margin loss.

    `mode: paper` is a reconstruction: the released code has no loss on the ensemble of
    sub-embeddings, and the weights between the losses are not known.
    """

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.compositor = Compositor(width, config.dim, config.sub_embeddings, config.composites)
        tasks = {"plain": 1, "paper": 1 + config.composites, "diva": 3}[config.mode]
        self.boundaries = nn.Parameter(torch.full((tasks, classes), config.beta))
        self.draw_triplets = partial(_draw_triplets, config)
        self._logits: Tensor | None = None
        if config.mode == "diva":
            self._add_diva(config.composites // 4 * config.dim)

    def _add_diva(self, dim: int) -> None:
        self.views = 2
        self.slow_trunk = MomentumEncoder(self.trunk)
        self.slow_compositor = MomentumEncoder(self.compositor)
        self.queue = FeatureQueue(self.config.queue_size, dim)
        self.separations = nn.ModuleList(Separation(dim) for _ in _HEADS[1:])
        self._keys: Tensor | None = None

    def forward(self, batch: Batch) -> Outputs:
        """Return `sub_embeddings` (B, K, D), `logits` (B, M, K), `composites` (B, M, D).

        `diva` takes images (B, 2, 3, H, W) and adds `keys` (B, M D / 4) of the second view.
        """
        first, second = self._views(batch.images)
        outputs: Outputs = self.compositor(self.trunk(first))._asdict()
        if self.config.mode == "diva":
            outputs["keys"] = self._key(second)
        return outputs

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms of the mode."""
        self._logits = outputs["logits"].detach()
        terms = {"reinf": self.config.lambda_reinf * self_reinforced(outputs["logits"])}
        match self.config.mode:
            case "plain":
                units = unit_rows(outputs["composites"].flatten(1))
                terms["discriminative"] = self._margin(0, "discriminative", units, labels)
            case "paper":
                terms |= self._paper(outputs, labels)
            case "diva":
                terms |= self._diva(outputs, labels)
        return terms

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors: parts or composites, concatenated."""
        composition = self.compositor(self.trunk(images))
        return composed(composition, self.config.mode, self.config.discriminative_weight)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, compositor, boundaries and heads."""
        groups = [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.compositor), self.config.head_lr_factor),
            ParameterGroup("boundaries", [self.boundaries], self.config.beta_lr_factor, 0.0),
        ]
        if self.config.mode == "diva":
            regressors = trainable(self.separations)
            groups.append(
                ParameterGroup("regressors", regressors, self.config.regressor_lr_factor, 0.0)
            )
        return groups

    def start_epoch(self, epoch: int) -> None:
        """Copy the model after the warm-up of its heads."""
        if epoch == 0:
            self._update_key(1.0)

    def after_step(self) -> None:
        """Update the momentum encoder, and queue the keys of the step."""
        self._update_key(self.config.key_share)
        if self.config.mode == "diva" and self._keys is not None:
            self.queue.push(self._keys)

    def metrics(self) -> dict[str, float]:
        """Share of the most frequently chosen sub-embedding in the last step."""
        if self._logits is None:
            return {}
        chosen = self._logits.argmax(2).flatten()
        return {"largest_choice": chosen.bincount().max().item() / len(chosen)}

    def _margin(self, task: int, head: str, units: Tensor, labels: Tensor) -> Tensor:
        triplets = self.draw_triplets(head, units.detach(), labels)
        boundaries = self.boundaries[task, labels[triplets.anchors]]
        return margin_cost(units, triplets, boundaries, self.config.margin, self.config.count)

    def _paper(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        ensemble = unit_rows(outputs["sub_embeddings"].flatten(1))
        subtasks = [
            self._margin(1 + m, f"composite {m}", unit_rows(composite), labels)
            for m, composite in enumerate(outputs["composites"].unbind(1))
        ]
        return {
            "discriminative": self._margin(0, "discriminative", ensemble, labels),
            "subtasks": self.config.lambda_subtasks * torch.stack(subtasks).mean(),
        }

    def _diva(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Source: wzzheng/DCML main.py, line 312."""
        config, heads = self.config, self._heads(outputs["composites"])
        self._keys = outputs["keys"].detach()
        discriminative, queries, shared, intra = heads.values()
        queue = self.queue
        ssl = fast_moco(
            queries, self._keys, queue.keys, queue.filled, config.temperature, config.moco_fixed
        )
        separation = [
            module(heads[head], discriminative)
            for head, module in zip(_HEADS[1:], self.separations, strict=True)
        ]
        return {
            "discriminative": self._margin(0, "discriminative", discriminative, labels),
            "ssl": config.alpha_ssl * ssl,
            "shared": config.alpha_shared * self._margin(1, "shared", shared, labels),
            "intra": config.alpha_intra * self._margin(2, "intra", intra, labels),
            "separation": config.rho * torch.stack(separation).sum(),
        }

    def _heads(self, composites: Tensor) -> dict[str, Tensor]:
        """Unit rows (B, M D / 4) of each head."""
        heads = join(composites, (1, 1, 1, 1))
        return {name: unit_rows(head) for name, head in zip(_HEADS, heads, strict=True)}

    def _views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key images; the features (B, F) of the head warm-up serve as both."""
        if self.config.mode != "diva" or images.dim() == 2:
            return images, images
        if images.dim() != 5 or images.shape[1] != 2:
            raise ConfigError("method.mode", [_ONE_VIEW])
        return images[:, 0], images[:, 1]

    @torch.no_grad()
    def _key(self, images: Tensor) -> Tensor:
        features = images if images.dim() == 2 else self.slow_trunk(images)
        return self._heads(self.slow_compositor(features).composites)["selfsimilarity"]

    def _update_key(self, share: float) -> None:
        if self.config.mode == "diva":
            self.slow_trunk.update(self.trunk, share)
            self.slow_compositor.update(self.compositor, share)


def _draw_triplets(config: Config, head: str, units: Tensor, labels: Tensor) -> Triplets:
    """Draw the triplets that the margin loss of `head` compares."""
    if head == "intra":
        return intra_class(labels)
    if head == "shared":
        return class_shared(units, labels, config.sharing, config.lower_cutoff)
    return by_distance(units, labels, config.lower_cutoff)


def embedding_head(config: Config, size: int) -> Composites:
    """Describe the head of embeddings (B, size)."""
    return Composites(
        dim=config.dim,
        sub_embeddings=config.sub_embeddings,
        composites=config.composites,
        mode=config.mode,
        discriminative_weight=config.discriminative_weight,
    )
