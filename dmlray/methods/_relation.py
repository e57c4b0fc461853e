"""DRML's head: an ensemble of small heads, and the relations between them.

Source: Zheng et al., ICCV 2021; code zbr17/DRML of 2021-09-06, relation_embedder.py.
Departs: a lone sample gets the embedding that it has within a batch.
B batch, K branches, F backbone width, I numbers that a branch sees, D embedding of a branch.
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

_LEAST_SUM = 1e-6  # of linear scores, whose sum may be 0


class BranchLinear(nn.Module):
    """K linear maps side by side: (B, K, inputs) -> (B, K, outputs)."""

    def __init__(self, branches: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(branches, outputs, inputs) * (2 / outputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(branches, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("bki,koi->bko", inputs, self.weight) + self.bias


class Related(NamedTuple):
    """nodes (B, K, D) of unit length, embeddings (B, K D), reconstruction errors (B, K)."""

    nodes: Tensor
    embeddings: Tensor
    errors: Tensor


class RelationHead(nn.Module):
    """Features (B, F) -> what each branch sees in them, and all of it related.

    The reconstruction only judges, so its gradient stays in the decoders; so do relations, whose
    gradient reaches the trunk through the nodes alone.
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
        nn.init.eye_(self.updater.weight)  # at first the nodes pass, and messages do not
        nn.init.zeros_(self.score.bias)
        nn.init.zeros_(self.updater.bias)

    def forward(self, features: Tensor) -> Related:
        with torch.autocast(features.device.type, enabled=False):
            inputs = self.inputs(at_least_float32(features))
            nodes, embeddings = self._related(inputs)
            return Related(nodes, embeddings, self.errors(inputs, nodes))

    def embed(self, features: Tensor) -> Tensor:
        """The embeddings (B, K D) of `forward` alone; needs no decoder."""
        with torch.autocast(features.device.type, enabled=False):
            return self._related(self.inputs(at_least_float32(features)))[1]

    def _related(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        nodes = F.normalize(self.node(inputs), dim=-1)
        return nodes, self.embeddings(nodes, self.scores(inputs))

    def inputs(self, features: Tensor) -> Tensor:
        """What each branch sees of features (B, F): (B, K, I)."""
        if self.branch_input == "chunk":
            parts: Tensor = features.unflatten(1, (self.branches, self.node.weight.shape[2]))
            return parts
        return features[:, None].expand(-1, self.branches, -1)

    def scores(self, inputs: Tensor) -> Tensor:
        """Raw weight of what branch i tells branch j, of inputs (B, K, I): (B, K, K) at [i, j]."""
        frozen = inputs.detach()
        sources = self.source(frozen) @ self.score.weight[0]  # (B, K)
        targets = self.target(frozen) @ self.score.weight[0]
        return torch.add(sources[:, :, None] - targets[:, None], self.score.bias)

    def messages(self, nodes: Tensor, scores: Tensor) -> Tensor:
        """What each branch hears from all, itself included: (B, K, D)."""
        if self.edge_norm == "relu_l1":
            weights = F.normalize(scores.relu(), p=1, dim=1)
        else:
            sums = scores.sum(1, keepdim=True)
            # `copysign` would be shorter, but ONNX has none.
            floor = torch.where(sums < 0, -_LEAST_SUM, _LEAST_SUM)
            weights = scores / sums.where(sums.abs() > _LEAST_SUM, floor)
        return torch.einsum("bij,bid->bjd", weights, nodes)

    def embeddings(self, nodes: Tensor, scores: Tensor) -> Tensor:
        """All updated nodes in a row: (B, K D), of any length."""
        nodes = nodes.detach() if self.detach_nodes else nodes
        updated = self.updater(torch.cat([nodes, self.messages(nodes, scores)], -1))
        return torch.flatten(updated, 1)

    def errors(self, inputs: Tensor, nodes: Tensor) -> Tensor:
        """How badly each branch recalls its input (B, K, I) from its node: (B, K)."""
        differences: Tensor = inputs.detach() - self.decoder(nodes.detach())
        if self.recon == "mse":
            return differences.square().mean(-1)
        lengths: Tensor = torch.linalg.vector_norm(differences, dim=-1)
        return lengths

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Start the nodes from principal directions of features (N, F), no two from the same."""
        if self.branch_input == "chunk":
            for branch, inputs in enumerate(self.inputs(features).unbind(1)):
                self._start(slice(branch, branch + 1), inputs)
        else:
            self._start(slice(None), features)

    def _start(self, branches: slice, inputs: Tensor) -> None:
        """Deal the principal directions of inputs (N, I) to `branches` in turn."""
        weight, bias = self.node.weight[branches], self.node.bias[branches]
        start = nn.Linear(inputs.shape[1], bias.numel(), device=weight.device)
        principal_head(start, inputs)
        weight.copy_(start.weight.unflatten(0, (-1, len(weight))).transpose(0, 1))
        bias.copy_(start.bias.unflatten(0, (-1, len(weight))).T)
