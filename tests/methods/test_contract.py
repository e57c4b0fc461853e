"""The interface of every file in `methods/`, including new ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlray import methods
from dmlray.distributions import Choice, Distribution, Value
from dmlray.methods import Batch
from tests.toy_trunk import ToyTrunk

CLASSES, EACH, SIDE, WIDTH = 20, 4, 8, 32


def noisy_images(seed: int) -> Batch:
    """Coloured noise around a mean per class, and its projection as a teacher's vectors."""
    means = torch.randn(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    noise = torch.randn(
        len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed + 1)
    )
    images = means[labels] + noise
    return Batch(images, labels, targets=images.flatten(1)[:, :24])


def build(name: str, seed: int = 0) -> Any:
    module = methods.load(name)
    small = {"dim": 16} if "dim" in module.Config.model_fields else {}
    torch.manual_seed(seed)
    return module.Learner(module.Config(**small), ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES)


def total_loss(learner: Any, batch: Batch) -> Tensor:
    torch.manual_seed(2)  # equal random draws, such as a mixture
    terms = learner.loss(learner(batch), batch.labels)
    assert all(term.dim() == 0 for term in terms.values())
    return torch.stack(list(terms.values())).sum()


def losses_while_learning(name: str, steps: int) -> list[float]:
    learner = build(name)
    settings = [{"params": g.parameters, "lr": 1e-3 * g.factor} for g in learner.groups()]
    optimizer = torch.optim.Adam(settings)
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        loss = total_loss(learner, noisy_images(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=methods.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_embeddings_have_unit_length_and_the_order_of_the_images(name: str) -> None:
    learner, images = build(name).eval(), noisy_images(0).images
    with torch.no_grad():
        embeddings = learner.embed(images)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(images)))
        torch.testing.assert_close(learner.embed(images.flip(0)), embeddings.flip(0))
        torch.testing.assert_close(learner.embed(images[:1]), embeddings[:1])


def test_every_trainable_parameter_is_in_exactly_one_group(name: str) -> None:
    learner = build(name)
    learner.trunk.requires_grad_(False)
    next(learner.trunk.parameters()).requires_grad_(True)
    groups = learner.groups()
    grouped = [id(p) for group in groups for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in learner.parameters() if p.requires_grad)
    assert len({group.name for group in groups}) == len(groups)
    assert any(group.name == "trunk" for group in groups)


def test_every_group_gets_a_finite_gradient(name: str) -> None:
    learner = build(name)
    total_loss(learner, noisy_images(0)).backward()
    for group in learner.groups():
        gradients = [p.grad for p in group.parameters if p.grad is not None]
        assert gradients, group.name
        assert all(gradient.isfinite().all() for gradient in gradients), group.name
        assert any(gradient.any() for gradient in gradients), group.name


def test_every_public_method_is_one_that_the_loop_calls(name: str) -> None:
    """A misspelt hook would never be called."""
    learner: Any = methods.load(name).Learner
    assert issubclass(learner, methods.Learner)
    assert {own for own in vars(learner) if own[0] != "_"} <= set(dir(methods.Learner))


def test_outputs_have_one_row_per_image(name: str) -> None:
    batch = noisy_images(0)
    outputs = build(name)(batch)
    assert outputs
    assert all(len(output) == len(batch.labels) for output in outputs.values())


def test_only_the_trunk_sees_images(name: str) -> None:
    """The head warm-up passes features as images through an identity trunk."""
    learner, batch = build(name), noisy_images(0)
    loss, embeddings = total_loss(learner, batch), learner.embed(batch.images)
    features = learner.trunk(batch.images)
    learner.trunk = nn.Identity()
    torch.testing.assert_close(total_loss(learner, batch._replace(images=features)), loss)
    torch.testing.assert_close(learner.embed(features), embeddings)
    assert not next(g for g in learner.groups() if g.name == "trunk").parameters


def test_a_few_steps_lower_the_loss(name: str) -> None:
    losses = losses_while_learning(name, 30)
    assert losses[-1] < 0.8 * losses[0]


def test_the_same_seed_gives_the_same_numbers(name: str) -> None:
    assert losses_while_learning(name, 3) == losses_while_learning(name, 3)


def test_state_dict_round_trips(name: str) -> None:
    one, other, batch = build(name, seed=0).eval(), build(name, seed=1).eval(), noisy_images(0)
    assert not torch.equal(one.embed(batch.images), other.embed(batch.images))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.embed(batch.images), other.embed(batch.images))
    assert torch.equal(total_loss(one, batch), total_loss(other, batch))


def test_the_loss_is_float32_under_autocast(name: str) -> None:
    learner, batch = build(name), noisy_images(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = total_loss(learner, batch)
        embeddings = learner.embed(batch.images)
    assert loss.dtype == embeddings.dtype == torch.float32
    torch.testing.assert_close(loss, total_loss(learner, batch), rtol=0.1, atol=0.1)


PAIRS = {
    "dcml": [{}, {"mode": "paper"}, {"mode": "diva"}],
    "idml": [{"loss": "proxy_anchor"}, {"loss": "triplet"}, {"loss": "margin"}],
    "margin": [{}, {"loss": "triplet"}, {"sampling": "hard"}],
    "pml": [{"loss": loss} for loss in ("ArcFaceLoss", "InstanceLoss", "TripletMarginLoss")],
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, settings) for name in methods.names() for settings in PAIRS.get(name, [{}])],
)
def test_a_method_that_needs_no_pairs_learns_without_them(
    name: str, settings: dict[str, Any]
) -> None:
    """A method that needs pairs has no class loss without them."""
    config = methods.load(name).Config(**settings)
    learner = methods.load(name).Learner(config, ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES)
    labels, size = torch.arange(8), (8, *(2,) * (learner.views - 1), 3, SIDE, SIDE)
    images = torch.randn(size, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, labels, targets=torch.eye(8))
    terms = learner.loss(learner(batch), labels)
    terms.pop("reinf", None)  # of DCML, independent of labels
    torch.stack(list(terms.values())).sum().backward()
    learned = any(p.grad is not None and p.grad.any() for p in learner.trunk.parameters())
    assert learned != methods.needs_pairs(config)


def ends(distribution: Distribution) -> tuple[Value, ...]:
    if isinstance(distribution, Choice):
        return distribution.values
    return (distribution.low, distribution.high)


MODES: dict[str, list[dict[str, Any]]] = {
    "dcml": [{}, {"mode": "paper"}, {"mode": "diva", "composites": 8}],
    "dreml": [{}, {"embedding": "pooled"}, {"meta_classes": 100}],
    "drml": [{"dim": 16}, {"dim": 16, "branch_input": "full", "edge_norm": "linear"}],
    "pml": [{"loss": "ArcFaceLoss"}],
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, settings) for name in methods.names() for settings in MODES.get(name, [{}])],
)
def test_the_head_for_inference_embeds_as_the_learner_does(
    name: str, settings: dict[str, Any]
) -> None:
    """From the learner's own tensors, without its classes, and through its description as JSON."""
    module = methods.load(name)
    config = module.Config(**settings)
    learner = module.Learner(config, ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES).eval()
    images = noisy_images(0).images
    with torch.no_grad():
        expected = learner.embed(images)
        described = module.embedding_head(config, expected.shape[1])
        head = type(described).model_validate_json(described.model_dump_json()).build(WIDTH)
        state = learner.state_dict()
        head.load_state_dict({name: state[name] for name in head.state_dict()})
        assert torch.equal(head(learner.trunk(images)), expected)


def test_the_space_lies_within_what_is_legal_and_around_the_default(name: str) -> None:
    module = methods.load(name)
    defaults = module.Config()
    for key, distribution in module.SPACE.items():
        if key.startswith("method."):
            setting = key.removeprefix("method.")
            assert distribution.contains(getattr(defaults, setting)), key
            for value in ends(distribution):
                module.Config(**{setting: value})


def test_published_settings_are_legal_and_inside_the_space(name: str) -> None:
    module = methods.load(name)
    for name, published in module.PUBLISHED.items():
        own = {k[7:]: v for k, v in published.settings.items() if k.startswith("method.")}
        module.Config(**own)
        assert published.source
        assert all(0 < score <= 1 for score in published.scores.values())
        for key, value in published.settings.items():
            variant = ", " in name  # possibly with its own optimizer or weights
            assert variant or key not in module.SPACE or module.SPACE[key].contains(value), key


def test_every_knob_has_a_help_and_a_legal_default(name: str) -> None:
    config = methods.load(name).Config
    assert all(field.description for field in config.model_fields.values())
    assert config(**config().model_dump()) == config()
