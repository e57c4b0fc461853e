"""DRML's head: an ensemble of small heads, and the relations between them.

Source: Zheng et al., ICCV 2021; code zbr17/DRML of 2021-09-06, relation_embedder.py.
Departs: a single sample gets the same embedding as within a batch.
B batch, K branches, F backbone width, I inputs of a branch, D embedding of a branch.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray.losses.cosine import at_least_float32
from dmlray.methods._head import principal_head

BranchInput = Literal["chunk", "full"]
EdgeNorm = Literal["relu_l1", "linear"]
Recon = Literal["mse", "l2"]

_LEAST_SUM = 1e-6  # lower bound of the sum of linear scores, which may be 0


class BranchLinear(nn.Module):
    """K independent linear maps: (B, K, inputs) -> (B, K, outputs)."""

    def __init__(self, branches: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(branches, outputs, inputs) * (2 / outputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(branches, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("bki,koi->bko", inputs, self.weight) + self.bias


class RelationOutputs(NamedTuple):
    """nodes (B, K, D) of unit length, embeddings (B, K D), reconstruction errors (B, K)."""

    nodes: Tensor
    embeddings: Tensor
    errors: Tensor


class RelationHead(nn.Module):
    """Features (B, F) -> node of each branch, embedding of the related nodes, errors.

    The reconstruction error only selects branches: its gradient stays in the decoders. Relations
    have detached inputs: their loss reaches the trunk through the nodes alone.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        branches: int,
        *,
        branch_input: BranchInput = "chunk",
        detach_nodes: bool = False,
        edge_norm: EdgeNorm = "relu_l1",
        recon: Recon = "mse",
    ) -> None:
        super().__init__()
        self.branches, self.branch_input = branches, branch_input
        self.detach_nodes, self.edge_norm, self.recon = detach_nodes, edge_norm, recon
        inputs = width // branches if branch_input == "chunk" else width
        size = dim // branches
        self.node = BranchLinear(branches, inputs, size)
        self.source = BranchLinear(branches, inputs, size)
        self.target = BranchLinear(branches, inputs, size)
        self.decoder = BranchLinear(branches, size, inputs)
        self.score = nn.Linear(size, 1)
        self.updater = nn.Linear(2 * size, size)
        nn.init.normal_(self.score.weight, std=2**0.5)
        nn.init.eye_(self.updater.weight)  # initially passes the nodes without messages
        nn.init.zeros_(self.score.bias)
        nn.init.zeros_(self.updater.bias)

    def forward(self, features: Tensor) -> RelationOutputs:
        with torch.autocast(features.device.type, enabled=False):
            inputs = self.inputs(at_least_float32(features))
            nodes, embeddings = self._related(inputs)
            return RelationOutputs(nodes, embeddings, self.errors(inputs, nodes))

    def embed(self, features: Tensor) -> Tensor:
        """The embeddings (B, K D) of `forward` alone; needs no decoder."""
        with torch.autocast(features.device.type, enabled=False):
            return self._related(self.inputs(at_least_float32(features)))[1]

    def _related(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        nodes = F.normalize(self.node(inputs), dim=-1)
        return nodes, self.embeddings(nodes, self.scores(inputs))

    def inputs(self, features: Tensor) -> Tensor:
        """Split or repeat features (B, F) as inputs of the branches: (B, K, I)."""
        if self.branch_input == "chunk":
            parts: Tensor = features.unflatten(1, (self.branches, self.node.weight.shape[2]))
            return parts
        return features[:, None].expand(-1, self.branches, -1)

    def scores(self, inputs: Tensor) -> Tensor:
        """Raw relation scores of inputs (B, K, I), from branch i to j: (B, K, K) at [i, j]."""
        frozen = inputs.detach()
        sources = self.source(frozen) @ self.score.weight[0]  # (B, K)
        targets = self.target(frozen) @ self.score.weight[0]
        return torch.add(sources[:, :, None] - targets[:, None], self.score.bias)

    def messages(self, nodes: Tensor, scores: Tensor) -> Tensor:
        """Sum of the weighted nodes of all branches for each branch, itself included: (B, K, D)."""
        if self.edge_norm == "relu_l1":
            weights = F.normalize(scores.relu(), p=1, dim=1)
        else:
            sums = scores.sum(1, keepdim=True)
            # `copysign` would be shorter, but ONNX has none.
            floor = torch.where(sums < 0, -_LEAST_SUM, _LEAST_SUM)
            weights = scores / sums.where(sums.abs() > _LEAST_SUM, floor)
        return torch.einsum("bij,bid->bjd", weights, nodes)

    def embeddings(self, nodes: Tensor, scores: Tensor) -> Tensor:
        """Concatenate the updated nodes: (B, K D), not normalised."""
        nodes = nodes.detach() if self.detach_nodes else nodes
        updated = self.updater(torch.cat([nodes, self.messages(nodes, scores)], -1))
        return torch.flatten(updated, 1)

    def errors(self, inputs: Tensor, nodes: Tensor) -> Tensor:
        """Reconstruction error of the input (B, K, I) of each branch from its node: (B, K)."""
        differences: Tensor = inputs.detach() - self.decoder(nodes.detach())
        if self.recon == "mse":
            return differences.square().mean(-1)
        lengths: Tensor = torch.linalg.vector_norm(differences, dim=-1)
        return lengths

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Initialise the nodes from distinct principal directions of features (N, F)."""
        if self.branch_input == "chunk":
            for branch, inputs in enumerate(self.inputs(features).unbind(1)):
                self._initialise_nodes(slice(branch, branch + 1), inputs)
        else:
            self._initialise_nodes(slice(None), features)

    def _initialise_nodes(self, branches: slice, inputs: Tensor) -> None:
        """Distribute the principal directions of inputs (N, I) over `branches` in turn."""
        weight, bias = self.node.weight[branches], self.node.bias[branches]
        head = nn.Linear(inputs.shape[1], bias.numel(), device=weight.device)
        principal_head(head, inputs)
        weight.copy_(head.weight.unflatten(0, (-1, len(weight))).transpose(0, 1))
        bias.copy_(head.bias.unflatten(0, (-1, len(weight))).T)
