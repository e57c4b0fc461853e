from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dmlray.losses.cosine import unit_rows
from dmlray.methods._triplets import Triplets, _log_weights, by_distance
from dmlray.methods.margin import Config, Learner, by_hardness, distances, triplets_loss
from tests import golden_vectors
from tests.golden_vectors import files, load


def read(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load(path).items()}


assert_close = partial(golden_vectors.assert_close, tolerance=3e-4, double=1e-8)


def learner_of(config: Config, classes: int, beta: Tensor | None = None) -> Learner:
    learner = Learner(config, nn.Identity(), config.dim, classes)
    if beta is not None:
        learner.beta = nn.Parameter(beta.clone())
    return learner


def given_triplets(rows: Tensor) -> Triplets:
    anchors, positives, negatives = rows.T
    usable = torch.ones(len(rows), dtype=torch.bool)
    return Triplets(anchors, positives, negatives, usable)


def chances(units: Tensor, labels: Tensor, nearest: float) -> Tensor:
    """Chance (B, B) of each row to be drawn as negative; rows without one are 0."""
    same = labels[:, None] == labels
    logits = _log_weights(units, nearest).masked_fill(same, -torch.inf)
    return logits.softmax(1).nan_to_num(0)


def units_and_labels(
    batch: int, classes: int, dim: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=dtype)
    return unit_rows(embeddings), torch.randint(classes, (batch,), generator=generator)


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_margin_*.npz"))
def test_margin_loss_equals_dcml(path: Path) -> None:
    arrays = read(path)
    batch = arrays["batch"].requires_grad_()
    config = Config(dim=batch.shape[1], margin=arrays["margin"].item())
    learner = learner_of(config, len(arrays["beta"]), arrays["beta"])
    triplets = given_triplets(arrays["triplets"])
    boundaries = learner.beta[arrays["labels"][triplets.anchors]]
    loss = triplets_loss(config, batch, triplets, boundaries)
    loss.backward()
    single = batch.dtype == torch.float32
    anchors = batch[triplets.anchors]
    for others, key in ((triplets.positives, "d_ap"), (triplets.negatives, "d_an")):
        assert_close(distances(anchors, batch[others], 1e-8), arrays[key], single)
    assert_close(loss, arrays["loss"], single)
    assert_close(batch.grad, arrays["grad_batch"], single)
    assert_close(learner.beta.grad, arrays["grad_beta"], single=True)  # float32 in every file


@pytest.mark.parametrize("path", files("drml", "margin_*.npz") + files("drml", "triplet_*.npz"))
def test_pair_losses_equal_drml(path: Path) -> None:
    arrays = read(path)
    raw, beta = arrays["in/x"].requires_grad_(), arrays.get("param/beta")
    single, slack = raw.dtype == torch.float32, arrays["hp"][0].item()
    config = Config(
        dim=raw.shape[1],
        loss="triplet" if beta is None else "margin",
        sampling="hard",
        margin=slack,
        count="halves",
    )
    learner = learner_of(config, 0 if beta is None else len(beta), beta)
    units = unit_rows(raw)
    triplets = given_triplets(arrays["in/triplets"])
    boundaries = None if beta is None else learner.beta[arrays["in/labels"][triplets.anchors]]
    loss = triplets_loss(config, units, triplets, boundaries)
    loss.backward()
    assert_close(distances(units[:, None], units), arrays["out/dist"], single)
    assert_close(loss, arrays["out/loss"], single)
    assert_close(raw.grad, arrays["grad/x"], single)
    if beta is not None:
        assert_close(learner.beta.grad, arrays["grad/beta"], single)
    chosen = by_hardness(units.detach(), arrays["in/labels"], nearest=0.5)
    assert torch.equal(chosen.usable.nonzero()[:, 0], triplets.anchors)
    assert torch.equal(chosen.negatives[triplets.anchors], triplets.negatives)


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_miner_*.npz"))
def test_chances_of_negatives_equal_dcml(path: Path) -> None:
    arrays = read(path)
    units, labels, nearest = arrays["batch"], arrays["labels"], arrays["lower_cutoff"].item()
    rtol = 1e-8 if units.dtype == torch.float64 else 1e-3
    shuffled = labels[arrays["shuffle_perm"]]
    assert torch.equal(shuffled, arrays["shuffled_labels"])
    for given_labels, key, anchors in (
        (labels, "neg_prob", "anchors"),
        (labels, "shared_neg_prob", None),
        (shuffled, "shuffled_neg_prob", "shuffled_anchors"),
    ):
        found = chances(units, given_labels, nearest)
        torch.testing.assert_close(found, arrays[key], rtol=rtol, atol=rtol * 1e-3)
        if anchors:
            usable = by_distance(units, given_labels, nearest).usable
            assert torch.equal(usable.nonzero()[:, 0], arrays[anchors])


def slow_chances(units: Tensor, labels: Tensor, nearest: float) -> Tensor:
    """Equation 3 and section 4 of arXiv 1706.07567, one pair at a time, uniform over distances."""
    found = torch.zeros(len(units), len(units), dtype=torch.float64)
    dim = units.shape[1]
    for i in range(len(units)):
        for j in range(len(units)):
            if labels[i] != labels[j]:
                d = min(max((units[i] - units[j]).norm().item(), nearest), 2 - 1e-4)
                found[i, j] = 1 / (d ** (dim - 2) * (1 - d * d / 4) ** ((dim - 3) / 2))
        if found[i].any():
            found[i] /= found[i].sum()
    return found


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 9),
    classes=st.integers(1, 9),
    dim=st.integers(1, 12),
    nearest=st.sampled_from([0.3, 0.5, 0.8]),
    seed=st.integers(0, 10_000),
)
def test_chances_equal_the_paper_on_any_shape(
    batch: int, classes: int, dim: int, nearest: float, seed: int
) -> None:
    units, labels = units_and_labels(batch, classes, dim, seed)
    found = chances(units, labels, nearest)
    torch.testing.assert_close(found, slow_chances(units, labels, nearest), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 16, 512, 8192])
def test_chances_stay_finite_in_float32(dim: int) -> None:
    units, labels = units_and_labels(6, 3, dim, seed=1, dtype=torch.float32)
    units[1], units[2] = units[0], -units[0]
    found, some = chances(units, torch.arange(6), 0.5), chances(units, labels, 0.5)
    assert found.isfinite().all()
    assert some.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(6))


def test_draws_follow_their_chances() -> None:
    torch.manual_seed(0)
    units, labels = units_and_labels(8, 3, 4, seed=5)
    times = 4000
    positives, negatives = torch.zeros(8, 8), torch.zeros(8, 8)
    for _ in range(times):
        drawn = by_distance(units, labels, 0.5)
        positives[drawn.anchors, drawn.positives] += 1 / times
        negatives[drawn.anchors, drawn.negatives] += 1 / times
    partners = (labels[:, None] == labels).double().fill_diagonal_(0)
    evenly = partners / partners.sum(1, keepdim=True)
    usable = drawn.usable
    assert usable.any()
    torch.testing.assert_close(positives[usable], evenly[usable].float(), atol=0.04, rtol=0)
    expected = chances(units, labels, 0.5).float()
    torch.testing.assert_close(negatives[usable], expected[usable], atol=0.04, rtol=0)


def slow_hardest(units: Tensor, labels: Tensor, nearest: float) -> dict[int, int]:
    """The negative of each anchor that has one, as GeDML's HardSelector chooses it."""
    d = torch.stack([(units - unit).norm(dim=1) for unit in units])
    floor = min(nearest, max(d[i, j].item() for i, j in (labels[:, None] == labels).nonzero()))
    chosen = {}
    for i in range(len(units)):
        others = [j for j in range(len(units)) if labels[j] != labels[i]]
        if others:
            chosen[i] = min(others, key=lambda j: max(d[i, j].item(), floor))
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 12),
    classes=st.integers(1, 9),
    dim=st.integers(2, 5),
    nearest=st.sampled_from([0.3, 0.8]),
    sampling=st.sampled_from(["hard", "distance"]),
    seed=st.integers(0, 10_000),
)
def test_triplets_are_legal_on_any_batch(
    batch: int, classes: int, dim: int, nearest: float, sampling: str, seed: int
) -> None:
    units, labels = units_and_labels(batch, classes, dim, seed)
    drawn = (by_hardness if sampling == "hard" else by_distance)(units, labels, nearest)
    for anchor, positive, negative, usable in zip(*drawn, strict=True):
        members = (labels == labels[anchor]).sum()
        assert usable == (2 <= members < batch)
        if usable:
            assert labels[positive] == labels[anchor]
            assert positive != anchor
            assert labels[negative] != labels[anchor]
    if sampling == "hard":
        for anchor, negative in slow_hardest(units, labels, nearest).items():
            assert drawn.negatives[anchor] == negative


@pytest.mark.parametrize("loss", ["margin", "triplet"])
@pytest.mark.parametrize("sampling", ["distance", "hard"])
@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1], [2]],
    ids=["one class only", "one image per class", "duplicates", "batch of one"],
)
def test_odd_batches_give_finite_gradients(loss: str, sampling: str, labels: list[int]) -> None:
    torch.manual_seed(0)
    learner = learner_of(Config(dim=3, loss=loss, sampling=sampling, margin=0.4), classes=5)
    embeddings = torch.randn(1, 3).repeat(len(labels), 1).requires_grad_()
    value = learner.loss({"embeddings": embeddings}, torch.tensor(labels))[loss]
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    if len(set(labels)) in (1, len(labels)):
        assert value == 0
        assert not embeddings.grad.any()
    else:
        assert value > 0


def test_each_class_moves_its_own_boundary() -> None:
    torch.manual_seed(0)
    learner = learner_of(Config(dim=3, beta=0.1), classes=6)
    labels = torch.tensor([1, 1, 4, 4])
    learner.loss({"embeddings": torch.randn(4, 3)}, labels)["margin"].backward()
    assert learner.beta.grad.nonzero()[:, 0].tolist() == [1, 4]


def test_boundaries_are_a_group_without_decay_and_triplets_have_none() -> None:
    beta = next(g for g in learner_of(Config(dim=3), classes=6).groups() if g.name == "beta")
    assert (beta.factor, beta.weight_decay) == (50.0, 0.0)
    groups = learner_of(Config(dim=3, loss="triplet"), classes=6).groups()
    assert [group.name for group in groups] == ["trunk", "head"]


def test_the_seed_decides_the_draws() -> None:
    units, labels = units_and_labels(32, 4, 8, seed=0)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(torch.stack(by_distance(units, labels, 0.5)[:3]))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
