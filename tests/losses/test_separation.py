from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlray.losses.separation import Separation, reverse_gradient
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_separation_*.npz"))
def test_equals_the_authors_code(path: Path) -> None:
    arrays = load(path)
    directions = [str(direction).split("-") for direction in arrays.pop("directions")]
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    heads = {k[4:]: v.requires_grad_() for k, v in tensors.items() if k.startswith("emb_")}
    found: dict[str, torch.Tensor] = {}
    regressors, losses = [], []
    for i, (source, target) in enumerate(directions):
        hidden, dim = tensors[f"W1_dir{i}"].shape
        module = Separation(dim, hidden).to(tensors[f"W1_dir{i}"].dtype)
        names = [f"{kind}{layer}_dir{i}" for layer in (1, 2) for kind in "Wb"]
        parameters = list(module.parameters())
        for name, parameter in zip(names, parameters, strict=True):
            parameter.data.copy_(tensors[name])
        regressors += list(zip(names, parameters, strict=True))
        losses.append(float(tensors["rho"][i]) * module(heads[source], heads[target]))
    loss = torch.stack(losses).sum()
    loss.backward()
    found = {f"grad_{name}": parameter.grad for name, parameter in regressors}
    found |= {f"grad_emb_{name}": head.grad for name, head in heads.items()}
    found["loss"] = loss.detach()
    for key, value in found.items():
        assert_close(value, tensors[key], loss.dtype == torch.float32, name=key)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10**6))
def test_equals_the_equation(rows: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = Separation(dim, hidden=3).double()
    source, target = torch.randn(2, rows, dim).double()
    first, _, second = module.regressor
    total = 0.0
    for a, b in zip(source, target, strict=True):
        hidden = (first.weight @ (a / a.norm()) + first.bias).clamp(min=0)
        guess = second.weight @ hidden + second.bias
        products = (b / b.norm()) * (guess / guess.norm())
        total = total + sum(p**2 for p in products) / dim
    torch.testing.assert_close(module(source, target), -total / rows)


def test_the_regressor_raises_the_agreement_that_the_heads_lower() -> None:
    torch.manual_seed(0)
    module, source = Separation(4, hidden=8).double(), torch.randn(5, 4).double().requires_grad_()
    target = torch.randn(5, 4).double().requires_grad_()
    before = module(source, target)
    before.backward()
    with torch.no_grad():
        steps = {name: p - 0.01 * p.grad for name, p in module.named_parameters()}
        trained = torch.func.functional_call(module, steps, (source, target))
        lowered = module(source - 0.01 * source.grad, target - 0.01 * target.grad)
    assert trained < before < lowered < 0


def test_reversal_keeps_the_numbers_and_turns_the_gradient() -> None:
    numbers = torch.tensor([1e-30, -3.3, 7e20], requires_grad=True)
    reversed_numbers = reverse_gradient(numbers)
    reversed_numbers.sum().backward()
    assert torch.equal(reversed_numbers, numbers)
    assert numbers.grad.tolist() == [-1, -1, -1]
