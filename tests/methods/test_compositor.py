from pathlib import Path

import pytest
import torch
from torch import Tensor

from dmlray.losses.cosine import unit_rows
from dmlray.losses.self_reinforced import self_reinforced
from dmlray.methods._compositor import Compositor, join
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load

HEADS = ("discriminative", "selfsimilarity", "shared", "intra")
SHARES = {1: (1,), 2: (2, 2), 3: (2, 1, 1), 4: (1, 1, 1, 1)}


def compositor_of(arrays: dict[str, Tensor]) -> Compositor:
    """A compositor with the weights of the authors' layers."""
    parts, composites = (
        sum(key.startswith(f"W_{kind}") for key in arrays) for kind in ("ens", "comp")
    )
    dim, width = arrays["W_ens0"].shape
    compositor = Compositor(width, dim, parts, composites).to(arrays["W_ens0"].dtype)
    for kind, layer in (("ens", compositor.sub_embed), ("comp", compositor.choose)):
        count = parts if kind == "ens" else composites
        layer.weight.data = torch.cat([arrays[f"W_{kind}{i}"] for i in range(count)])
        layer.bias.data = torch.cat([arrays[f"b_{kind}{i}"] for i in range(count)])
    return compositor


def gradients(compositor: Compositor) -> dict[str, Tensor]:
    """The gradient of each of the authors' layers."""
    found: dict[str, Tensor] = {}
    for kind, layer, size in (
        ("ens", compositor.sub_embed, compositor.dim),
        ("comp", compositor.choose, compositor.count),
    ):
        for name, parameter in (("W", layer.weight), ("b", layer.bias)):
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            found |= {f"{name}_{kind}{i}": g for i, g in enumerate(grad.split(size))}
    return found


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_heads_*.npz"))
def test_heads_and_self_reinforcement_equal_the_authors_code(path: Path) -> None:
    arrays = load(path)
    features, normalise = len(arrays.pop("features")), bool(arrays.pop("normalize"))
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    compositor = compositor_of(tensors)
    for objective in ("obj", "reinf"):
        compositor.zero_grad()
        images = tensors["feature_map"].clone().requires_grad_()
        composition = compositor(images.mean((2, 3)))
        heads = join(composition.composites, SHARES[features])
        heads = [unit_rows(head) for head in heads] if normalise else heads
        named = dict(zip(HEADS[:features], heads, strict=True))
        value = torch.stack(
            [(head * tensors[f"coef_{name}"]).sum() for name, head in named.items()]
        ).sum()
        reinforced = self_reinforced(composition.logits)
        (value if objective == "obj" else reinforced).backward()
        feature_gradient = torch.zeros_like(images) if images.grad is None else images.grad
        found = {f"grad_{objective}_{k}": g for k, g in gradients(compositor).items()}
        found |= {f"out_{name}": head for name, head in named.items()}
        found |= {
            f"grad_{objective}_feature_map": feature_gradient,
            "ensemble_concat": composition.sub_embeddings.flatten(1),
            "probs": composition.logits.softmax(2).transpose(0, 1),
            "composites_raw": composition.composites.transpose(0, 1),
            "reinf_loss": reinforced,
            "objective": value,
        }
        for key, ours in found.items():
            assert ours is not None, key
            assert_close(ours, torch.as_tensor(tensors[key]), name=key)


def test_a_composite_is_the_mean_of_sub_embeddings_weighted_by_the_choice() -> None:
    torch.manual_seed(0)
    compositor, features = Compositor(5, 3, 2, 4).double(), torch.randn(6, 5).double()
    parts, logits, composites = compositor(features)
    for b in range(6):
        for m in range(4):
            chances = logits[b, m].exp() / logits[b, m].exp().sum()
            expected = chances[0] * parts[b, 0] + chances[1] * parts[b, 1]
            torch.testing.assert_close(composites[b, m], expected)


def test_composites_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Compositor(5, 3, 2, 4)(torch.randn(6, 5)).composites.dtype == torch.float32
