"""Settings of a step: its precision, and a compiled trunk."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from dmlray import methods
from dmlray.errors import ResourceError
from dmlray.learn.compiler import check_compiler
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.preflight import preflight
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.step import forward, step
from dmlray.learn.trainer import build_learner
from dmlray.methods import Batch
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import draw_images, toy_words

CLASSES, BATCH, CPU = 6, 12, torch.device("cpu")
TOY = ["backbone.name=timm/test_resnet", "backbone.weights=none", "data.batch_size=12"]


def toy(name: str, *words: str) -> tuple[Any, Any]:
    """A plan and its learner."""
    file = Path(f"experiments/{name}_demo.yaml")
    plan = read_experiment(file, [*TOY, *words]).experiment
    return plan, build_learner(plan, CLASSES, Runtime(torch.device("cpu")))


def batch(learner: Any) -> Batch:
    views = (2,) if learner.views == 2 else ()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, *views, 3, 32, 32, generator=generator)
    targets = torch.randn(BATCH, 4, generator=generator)
    return Batch(images, torch.arange(BATCH) % CLASSES, targets=targets)


def terms_of(name: str, *words: str) -> dict[str, Tensor]:
    plan, learner = toy(name, *words)
    torch.manual_seed(0)
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    return step(learner.train(), batch(learner), optimizer, plan)


@pytest.mark.parametrize("name", methods.names())
def test_bfloat16_steps_have_float32_losses_near_those_of_float32(name: str) -> None:
    exact, rounded = terms_of(name), terms_of(name, "budget.precision=bfloat16")
    assert exact.keys() == rounded.keys()
    assert any(exact[term] != rounded[term] for term in exact)
    for term, value in rounded.items():
        assert value.dtype == torch.float32
        if "branch" not in term:  # DRML splits the batch, which depends on rounding
            torch.testing.assert_close(value, exact[term], rtol=0.1, atol=0.1)


def test_bfloat16_reaches_the_trunk_and_leaves_parameters_and_outputs_in_float32() -> None:
    plan, learner = toy("proxy_anchor", "budget.precision=bfloat16")
    seen = []
    learner.trunk.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    outputs = forward(learner, batch(learner), plan)
    step(learner, batch(learner), build_optimizer(plan.optimizer, learner.groups()), plan)
    assert seen == [torch.bfloat16] * 2
    assert outputs["embeddings"].dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    learner.embed(batch(learner).images)
    assert seen[-1] == torch.float32


def test_a_compiled_trunk_gives_the_same_numbers_under_the_same_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traced, but run by torch: building C++ takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plan, compiled = toy("proxy_anchor", "budget.compile=true")
    _, plain = toy("proxy_anchor")
    traced = torch._dynamo.utils.counters["stats"]["calls_captured"]
    found, expected = (
        step(learner, batch(plain), build_optimizer(plan.optimizer, learner.groups()), plan)
        for learner in (compiled, plain)
    )
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > traced
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())


def test_where_torch_cannot_compile_a_training_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler\nin many lines")

    monkeypatch.setattr(torch, "compile", lambda function: broken)
    check_compiler.cache_clear()
    with pytest.raises(ResourceError, match=r"^budget.compile: .* Allowed here: false$"):
        toy("proxy_anchor", "budget.compile=true")


def test_the_driver_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling on a GPU would keep a CUDA context, whose memory the trainings need."""
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", None)
    words = toy_words(draw_images(tmp_path / "images"))
    file = Path("experiments/proxy_anchor_demo.yaml")
    preflight(read_experiment(file, [*words, "budget.compile=true"]).experiment)


def test_a_compiled_trunk_has_one_fixed_shape_for_training_and_one_for_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        assert not any(isinstance(i, torch.SymInt) for i in inputs)
        images = {tuple(i.shape) for i in inputs if isinstance(i, Tensor) and i.dim() == 4}
        batch = {shape[0] for shape in images if shape[1:] == (3, 32, 32)}
        seen.add((torch.is_grad_enabled(), *batch))
        return graph.forward

    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    check_compiler(CPU)
    seen.clear()
    words = [*toy_words(draw_images(tmp_path / "images", 24, 30)), "budget.compile=true"]
    file = Path("experiments/proxy_anchor_demo.yaml")
    plan = read_experiment(file, [*words, "protocol.selection=validation"]).experiment
    scores = run_training(plan, RunFolder(tmp_path / "run"), lambda _: None, Runtime(CPU))
    assert seen == {(True, 8), (False, 256)}
    plain = override(plan, "test", {"budget.compile": False})
    expected = run_training(
        plain, RunFolder(tmp_path / "plain"), lambda _: None, Runtime(CPU)
    ).metrics
    assert scores.metrics == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fused_optimizers_step_as_the_plain_ones_on_a_network_in_channels_last(
    optimizer: str,
) -> None:
    """Test the CPU's fused kernels in place of a GPU's."""
    plan, _ = toy("proxy_anchor", f"optimizer.name={optimizer}")
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    fused, images = copy.deepcopy(plain), torch.randn(4, 3, 8, 8)
    for network, flag in ((plain, False), (fused, True)):
        moved = build_optimizer(
            plan.optimizer, [methods.ParameterGroup("trunk", list(network.parameters()))]
        )
        moved.param_groups[0]["fused"] = flag
        for _ in range(3):
            moved.zero_grad()
            network(images).square().sum().backward()
            moved.step()
    torch.testing.assert_close(fused.state_dict(), plain.state_dict())
