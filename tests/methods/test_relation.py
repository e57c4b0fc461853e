"""The relation head against its equations, one image and one branch at a time."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.methods._relation import BranchInput, EdgeNorm, Recon, RelationHead


def slow_relations(head: RelationHead, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (K, D), embedding (K D,) and errors (K,) of one feature (F,)."""
    count = head.branches
    seen = feature.chunk(count) if head.branch_input == "chunk" else [feature] * count

    def linear(layer: Any, k: int, inputs: Tensor) -> Tensor:
        return layer.weight[k] @ inputs + layer.bias[k]

    nodes = [linear(head.node, k, x) / linear(head.node, k, x).norm() for k, x in enumerate(seen)]
    sources = [linear(head.source, k, x) for k, x in enumerate(seen)]
    targets = [linear(head.target, k, x) for k, x in enumerate(seen)]
    updated = []
    for j in range(count):
        scores = [head.score(sources[i] - targets[j])[0] for i in range(count)]
        if head.edge_norm == "relu_l1":
            scores = [score.clamp(min=0) for score in scores]
        total = torch.stack(scores).sum()
        message = torch.zeros_like(nodes[0])
        for i in range(count):
            if total != 0:
                message = message + scores[i] / total * nodes[i]
        updated.append(head.updater(torch.cat([nodes[j], message])))
    gaps = [x - linear(head.decoder, k, nodes[k]) for k, x in enumerate(seen)]
    if head.recon == "mse":
        errors = [(gap**2).mean() for gap in gaps]
    else:
        errors = [(gap**2).sum().sqrt() for gap in gaps]
    return torch.stack(nodes), torch.cat(updated), torch.stack(errors)


def shaken_head(
    width: int,
    dim: int,
    branches: int,
    *,
    branch_input: BranchInput = "chunk",
    detach_nodes: bool = False,
    edge_norm: EdgeNorm = "relu_l1",
    recon: Recon = "mse",
) -> RelationHead:
    """A head in float64 with non-zero relations, unlike the initial one."""
    head = RelationHead(
        width,
        dim,
        branches,
        branch_input=branch_input,
        detach_nodes=detach_nodes,
        edge_norm=edge_norm,
        recon=recon,
    ).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 4),
    branches=st.integers(1, 5),
    part=st.integers(1, 4),
    size=st.integers(1, 4),
    branch_input=st.sampled_from(["chunk", "full"]),
    edge_norm=st.sampled_from(["relu_l1", "linear"]),
    recon=st.sampled_from(["mse", "l2"]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_equations_on_any_shape(
    batch: int,
    branches: int,
    part: int,
    size: int,
    branch_input: BranchInput,
    edge_norm: EdgeNorm,
    recon: Recon,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    head = shaken_head(
        branches * part,
        branches * size,
        branches,
        branch_input=branch_input,
        edge_norm=edge_norm,
        recon=recon,
    )
    features = torch.randn(batch, branches * part, dtype=torch.float64)
    found = head(features)
    assert found.embeddings.shape == (batch, branches * size)
    for row, feature in enumerate(features):
        for ours, expected in zip(found, slow_relations(head, feature), strict=True):
            torch.testing.assert_close(ours[row], expected, rtol=1e-7, atol=1e-7)


def test_a_lone_image_gets_what_it_gets_in_a_batch() -> None:
    torch.manual_seed(0)
    head, features = shaken_head(12, 8, 4), torch.randn(5, 12, dtype=torch.float64)
    for row in range(5):
        for alone, together in zip(head(features[row : row + 1]), head(features), strict=True):
            torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("detach_nodes", [False, True])
def test_detached_nodes_keep_the_final_loss_from_the_trunk(detach_nodes: bool) -> None:
    torch.manual_seed(0)
    head = shaken_head(12, 8, 4, detach_nodes=detach_nodes)
    features = torch.randn(5, 12, dtype=torch.float64).requires_grad_()
    head(features).embeddings.square().sum().backward()
    assert (features.grad is None or not features.grad.any()) == detach_nodes
    assert (head.node.weight.grad is None) == detach_nodes
    assert head.source.weight.grad.any()
    assert head.updater.weight.grad.any()


@pytest.mark.parametrize("recon", ["mse", "l2"])
def test_reconstruction_moves_the_decoders_alone(recon: Recon) -> None:
    torch.manual_seed(0)
    head = shaken_head(12, 8, 4, recon=recon)
    features = torch.randn(5, 12, dtype=torch.float64).requires_grad_()
    head(features).errors.sum().backward()
    moved = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"decoder.weight", "decoder.bias"}
    assert features.grad is None


def test_linear_scores_that_cancel_stay_finite() -> None:
    head = RelationHead(4, 4, 2, edge_norm="linear")
    nodes = torch.nn.functional.normalize(torch.randn(3, 2, 2), dim=-1)
    scores = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(3, 1, 1).requires_grad_()
    messages = head.messages(nodes, scores)
    messages.sum().backward()
    assert messages.isfinite().all()
    assert scores.grad.isfinite().all()


def test_a_new_head_has_the_official_size_and_spread() -> None:
    torch.manual_seed(0)
    head = RelationHead(1024, 512, 4)
    assert sum(p.numel() for p in head.parameters()) == 559_873
    for layer, std in (
        (head.node, 0.125),
        (head.source, 0.125),
        (head.decoder, 256**-0.5 * 2**0.5),
    ):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert not layer.bias.any()
    assert head.score.weight.std().item() == pytest.approx(2**0.5, rel=0.2)
    features = torch.randn(3, 1024)
    torch.testing.assert_close(head(features).embeddings, head(features).nodes.flatten(1))


@pytest.mark.parametrize("branch_input", ["chunk", "full"])
def test_principal_nodes_see_centred_and_different_directions(branch_input: BranchInput) -> None:
    torch.manual_seed(0)
    features = torch.randn(300, 12) @ torch.randn(12, 12) + 9.0
    head = RelationHead(12, 6, 3, branch_input=branch_input)
    head.initialise(features)
    outputs = head.node(head.inputs(features))  # (N, K, D)
    torch.testing.assert_close(outputs.mean(0), torch.zeros(3, 2), atol=1e-3, rtol=0)
    groups = [outputs.flatten(1)] if branch_input == "full" else outputs.unbind(1)
    for group in groups:
        covariance = group.T @ group / len(group)
        torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-3, rtol=0)


def test_autocast_does_not_coarsen_the_head() -> None:
    torch.manual_seed(0)
    head, features = RelationHead(12, 8, 4), torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        under = head(features)
    for coarse, fine in zip(under, head(features), strict=True):
        assert coarse.dtype == torch.float32
        torch.testing.assert_close(coarse, fine, rtol=0, atol=0)
