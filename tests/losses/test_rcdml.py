from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.losses.cosine import pairwise_cosines
from dmlray.losses.proxy_anchor import proxy_anchor
from dmlray.losses.rcdml import (
    Absent,
    Columns,
    corrected_proxies,
    proxy_relationship_loss,
    pull_and_push,
    sample_relationship_loss,
    within_class_weights,
)
from tests.golden_vectors import assert_close, files, load

Terms = dict[str, Tensor]


def ours(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, margin: float, alpha: float, mix: float,
    absent: Absent = "zero",
) -> Terms:  # fmt: skip
    """The four terms without weights."""
    columns = corrected_proxies(embeddings, labels, proxies, mix, absent)
    pull, push = pull_and_push(embeddings, labels, columns, len(proxies), margin, alpha)
    apart, together = proxy_relationship_loss(columns), sample_relationship_loss(embeddings, labels)
    return {"pos": pull, "neg": push, "prc": apart, "src": together}


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return one @ other / (one.norm() * other.norm())


def corrected_slowly(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, mix: float, absent: str
) -> dict[int, Tensor]:
    corrected = {}
    for c, proxy in enumerate(proxies):
        images = embeddings[labels == c]
        if len(images):
            shares = torch.stack([cosine(x, proxy) for x in images]).exp()
            corrected[c] = (
                mix * (shares[:, None] * images).sum(0) / shares.sum() + (1 - mix) * proxy
            )
        elif absent == "raw":
            corrected[c] = proxy
    return corrected


def slowly(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, margin: float, alpha: float, mix: float,
    absent: str = "zero",
) -> Terms:  # fmt: skip
    """The specification's section 2, one class and one pair at a time."""
    present = sorted(set(labels.tolist()))
    corrected = corrected_slowly(embeddings, proxies, labels, mix, absent)
    zero = embeddings.new_zeros(())
    pull, push, apart, together = zero, zero, zero, zero
    for c in range(len(proxies)):
        s = [cosine(x, corrected[c]) if c in corrected else zero for x in embeddings]
        own = [s[i] for i, label in enumerate(labels.tolist()) if label == c]
        others = [s[i] for i, label in enumerate(labels.tolist()) if label != c]
        pull = pull + torch.log(1 + sum((torch.exp(-alpha * (v - margin)) for v in own), zero))
        push = push + torch.log(1 + sum((torch.exp(alpha * (v + margin)) for v in others), zero))
    for c in corrected:
        for other in corrected:
            if c != other:
                apart = apart + cosine(corrected[c], corrected[other]).clamp(min=0)
    for c in present:
        images = embeddings[labels == c]
        pairs = [cosine(x, y) for i, x in enumerate(images) for y in images[i + 1 :]]
        if pairs:
            together = together + torch.exp(-torch.stack(pairs).min())
    return {
        "pos": pull / len(present), "neg": push / len(proxies), "prc": apart, "src": together,
    }  # fmt: skip


def gradients(term: Tensor, *inputs: Tensor) -> list[Tensor]:
    if not term.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


GOLDEN = files("rcdml_dreml", "rcdml_loss__*.npz")


def read(path: Path) -> tuple[dict[str, Tensor], Tensor, Tensor, tuple[float, float, float]]:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    margin, alpha, mix = (arrays[key].item() for key in ("mrg", "alpha", "pc_mix"))
    return (
        arrays, arrays["X"].requires_grad_(), arrays["P"].requires_grad_(), (margin, alpha, mix),
    )  # fmt: skip


@pytest.mark.parametrize("path", GOLDEN)
def test_terms_and_gradients_equal_the_official_code(path: Path) -> None:
    arrays, embeddings, proxies, settings = read(path)
    single = embeddings.dtype == torch.float32
    terms = ours(embeddings, proxies, arrays["T"], *settings)
    weights = {"prc": arrays["prc"].item(), "src": arrays["src"].item()}
    loss = torch.stack([weights.get(key, 1.0) * term for key, term in terms.items()]).sum()
    for key, term in {**terms, "loss": loss}.items():
        assert_close(
            term, arrays["loss" if key == "loss" else f"{key}_term"], single, tolerance=1e-4
        )
        for name, gradient in zip("XP", gradients(term, embeddings, proxies), strict=True):
            assert_close(gradient, arrays[f"d{name}_{key}"], single)


@pytest.mark.parametrize("path", GOLDEN)
def test_corrected_proxies_equal_the_official_code(path: Path) -> None:
    arrays, embeddings, proxies, (_, _, mix) = read(path)
    labels, single = arrays["T"], embeddings.dtype == torch.float32
    columns = corrected_proxies(embeddings, labels, proxies, mix)
    table = torch.zeros_like(proxies).index_add(
        0, columns.classes, columns.proxies * columns.counted[:, None]
    )
    weights = within_class_weights(embeddings, labels, proxies[labels]).diagonal()
    assert_close(table, arrays["P_corrected"], single)
    assert_close(pairwise_cosines(embeddings, table), arrays["cos_corrected"], single)
    assert_close(weights, arrays["pc_weight"], single)
    assert columns.counted.sum() == arrays["num_present"]


@pytest.mark.parametrize("path", GOLDEN)
def test_raw_without_correction_is_proxy_anchor(path: Path) -> None:
    arrays, embeddings, proxies, (margin, alpha, _) = read(path)
    terms = ours(embeddings, proxies, arrays["T"], margin, alpha, 0.0, "raw")
    loss = terms["pos"] + terms["neg"]
    single = embeddings.dtype == torch.float32
    assert_close(loss, arrays["pa_loss"], single, tolerance=1e-4)
    for key, found in zip("XP", gradients(loss, embeddings, proxies), strict=True):
        assert_close(found, arrays[f"pa_d{key}"], single)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 10), st.integers(1, 8), st.integers(2, 6)),
    present=st.integers(1, 8),
    settings=st.tuples(
        st.sampled_from([0.0, 0.1, 0.5]),
        st.sampled_from([0.5, 32.0, 64.0]),
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    length=st.sampled_from([0.05, 1.0, 30.0]),
    absent=st.sampled_from(["zero", "raw"]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_formulas_on_any_shape(
    shape: tuple[int, int, int], present: int, settings: tuple[float, float, float],
    length: float, absent: Absent, seed: int,
) -> None:  # fmt: skip
    batch, classes, dim = shape
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=torch.float64).requires_grad_()
    proxies = torch.randn(classes, dim, generator=generator, dtype=torch.float64) * length
    proxies.requires_grad_()
    labels = torch.randint(min(present, classes), (batch,), generator=generator)
    expected = slowly(embeddings, proxies, labels, *settings, absent)
    found = ours(embeddings, proxies, labels, *settings, absent)
    for key, term in found.items():
        assert_close(term, expected[key].detach(), single=False)
        pairs = zip(
            gradients(term, embeddings, proxies),
            gradients(expected[key], embeddings, proxies),
            strict=True,
        )
        for gradient, slow in pairs:
            assert_close(gradient, slow, single=False)


@pytest.mark.parametrize("absent", ["zero", "raw"])
@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 4, 4]],
    ids=["one class only", "one image per class", "duplicates"],
)
def test_extreme_scale_stays_finite_and_exact_in_float32(labels: list[int], absent: Absent) -> None:
    proxies = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    proxies[2] *= 1e4
    embeddings = torch.stack([proxies[0], proxies[0], -proxies[1], proxies[2]])
    inputs = [embeddings.requires_grad_(), proxies.requires_grad_()]
    found = ours(embeddings, proxies, torch.tensor(labels), 0.4, 64.0, 0.3, absent)
    exact = slowly(
        embeddings.double(), proxies.double(), torch.tensor(labels), 0.4, 64.0, 0.3, absent
    )
    for key, term in found.items():
        assert all(gradient.isfinite().all() for gradient in gradients(term, *inputs))
        torch.testing.assert_close(term.double(), exact[key], rtol=1e-5, atol=1e-4)


def test_the_largest_legal_scale_and_rows_of_zeros_stay_finite() -> None:
    embeddings = torch.zeros(3, 2, requires_grad=True)
    proxies = torch.zeros(4, 2, requires_grad=True)
    terms = ours(embeddings, proxies, torch.tensor([0, 0, 1]), 0.99, 1024.0, 0.3)
    for term in terms.values():
        assert term.isfinite()
        assert all(g.isfinite().all() for g in gradients(term, embeddings, proxies))


def test_absent_proxies_get_a_gradient_only_when_raw() -> None:
    torch.manual_seed(0)
    embeddings, proxies = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([1, 1, 3, 3])
    moved = {}
    for absent in ("zero", "raw"):
        terms = ours(embeddings, proxies, labels, 0.1, 32.0, 0.3, absent)
        (gradient,) = gradients(terms["neg"] + terms["prc"], proxies)
        moved[absent] = gradient.any(1).tolist()
    assert moved["zero"] == [False, True, False, True, False]
    assert all(moved["raw"])


def test_the_means_divide_by_pairs_of_classes_and_by_classes_with_pairs() -> None:
    torch.manual_seed(0)
    embeddings, proxies = torch.randn(7, 4), torch.randn(6, 4).abs()
    labels = torch.tensor([0, 0, 2, 2, 2, 3, 5])  # 4 classes, 2 of them with pairs
    zero, raw = (
        corrected_proxies(embeddings, labels, proxies, 0.1, absent) for absent in ("zero", "raw")
    )
    torch.testing.assert_close(
        proxy_relationship_loss(zero, "mean_pairs"), proxy_relationship_loss(zero) / 12
    )
    torch.testing.assert_close(
        proxy_relationship_loss(raw, "mean_pairs"), proxy_relationship_loss(raw) / 30
    )
    halves = sample_relationship_loss(embeddings, labels) / 2
    torch.testing.assert_close(sample_relationship_loss(embeddings, labels, "mean"), halves)


def test_means_over_nothing_are_zero() -> None:
    embeddings, labels = torch.randn(2, 3), torch.tensor([0, 1])
    assert sample_relationship_loss(embeddings, labels, "mean") == 0
    one = Columns(torch.randn(2, 3), torch.tensor([4, 4]), torch.tensor([True, False]))
    assert proxy_relationship_loss(one, "mean_pairs") == 0


@pytest.mark.parametrize("absent", ["zero", "raw"])
def test_no_size_and_no_decision_depends_on_the_labels(absent: Absent) -> None:
    """Two batches at once: vmap refuses what would wait for the device to know the labels."""
    torch.manual_seed(0)
    embeddings, proxies = torch.randn(2, 6, 4), torch.randn(9, 4)
    labels = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 2, 3, 3, 8, 8]])

    def total(x: Tensor, p: Tensor, y: Tensor) -> Tensor:
        return torch.stack(list(ours(x, p, y, 0.1, 32.0, 0.3, absent).values())).sum()

    step = torch.func.grad_and_value(total, argnums=(0, 1))
    together = torch.vmap(step, in_dims=(0, None, 0))(embeddings, proxies, labels)
    for i in range(2):
        (to_embeddings, to_proxies), value = step(embeddings[i], proxies, labels[i])
        torch.testing.assert_close(together[1][i], value)
        torch.testing.assert_close(together[0][0][i], to_embeddings, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[0][1][i], to_proxies, rtol=1e-4, atol=1e-5)


def largest_size(call: Callable[[], object]) -> int:
    """Numbers in the largest tensor that is kept for the backward pass."""
    kept = [0]

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return max(kept)


def test_resting_classes_cost_no_memory() -> None:
    embeddings = torch.randn(6, 4, requires_grad=True)
    proxies = torch.randn(3000, 4, requires_grad=True)
    labels = torch.randint(3000, (6,))
    assert largest_size(lambda: ours(embeddings, proxies, labels, 0.1, 32.0, 0.3)) < len(proxies)


def test_autocast_does_not_coarsen_the_terms() -> None:
    torch.manual_seed(0)
    embeddings, proxies, labels = torch.randn(8, 16), torch.randn(5, 16), torch.arange(8) % 5
    exact = ours(embeddings, proxies, labels, 0.1, 32.0, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        under = ours(embeddings, proxies, labels, 0.1, 32.0, 0.3)
        rounded = ours(embeddings.bfloat16(), proxies, labels, 0.1, 32.0, 0.3)
    for key, term in exact.items():
        assert under[key].dtype == rounded[key].dtype == torch.float32
        torch.testing.assert_close(under[key], term, rtol=0, atol=0)


def test_no_correction_and_all_classes_present_is_proxy_anchor() -> None:
    torch.manual_seed(0)
    embeddings, proxies, labels = torch.randn(8, 6), torch.randn(4, 6), torch.arange(8) % 4
    terms = ours(embeddings, proxies, labels, 0.1, 32.0, 0.0)
    expected = proxy_anchor(pairwise_cosines(embeddings, proxies), labels, 0.1, 32.0)
    torch.testing.assert_close(terms["pos"] + terms["neg"], expected)
