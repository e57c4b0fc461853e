"""Train on a fake GPU: no mix of devices, no new synchronisation, and the scores of the CPU."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dmlray.data.batches import loader
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.learn.fake_gpu import CPU, GPU, DeviceMixError, FakeTensor, fake_gpu
from tests.toy_data import draw_images, toy_words

CASES = [
    "proxy_anchor protocol.nmi=true protocol.selection=best_on_test",
    "proxy_anchor optimizer.name=sgd optimizer.clip_norm=1 optimizer.clip_value=1",
    "proxy_anchor optimizer.name=rmsprop budget.precision=auto",
    "proxy_anchor optimizer.name=adam budget.warmup_epochs=1 budget.precision=tf32",
    "proxy_anchor protocol.selection=validation protocol.folds=2 budget.precision=float16",
    "margin budget.precision=bfloat16",
    "margin method.loss=triplet method.sampling=hard",
    "drml budget.precision=bfloat16",
    "drml method.branch_input=full method.edge_norm=linear method.recon=l2",
    "idml budget.precision=float16",
    "idml method.metric=live method.loss=contrastive",
    "idml method.loss=triplet",
    "idml method.loss=margin",
    "idml method.loss=multi_similarity",
    "dcml method.mode=plain",
    "dcml method.mode=paper budget.precision=bfloat16",
    "dcml method.mode=diva method.queue_size=16 budget.precision=float16",
    "dcml method.mode=diva method.queue_size=16 method.sharing=random method.moco_fixed=false",
    "rcdml budget.precision=bfloat16",
    "rcdml method.absent=raw method.prc_reduction=mean_pairs method.src_reduction=mean",
    "dreml budget.precision=bfloat16",
    "dreml method.recipe=authors2018 method.embedding=pooled",
    "pml",
]
BETWEEN_STEPS = {  # where a training may wait for its GPU
    "data/batches/augment.py:row_of",
    "learn/checkpoint.py:load",
    "learn/state.py:state_dict",
    "learn/divergence.py:_broken",
    "learn/divergence.py:read",
    "learn/embedding_files.py:write_embeddings",
    "learn/loop.py:<dictcomp>",
    "learn/trainer.py:score",
    "learn/head_warmup.py:warm_up_heads",
    "methods/_head.py:principal_head",
}
METRIC_HOOKS = {"metrics", "start_epoch", "initialise_head"}  # hooks of methods between steps
# Torch groups gradients in C++, where fakes are on the CPU, and sends a factor to each group.
GROUPED = {("learn/step.py:_apply", "to the CPU"), ("learn/optimizer.py:clip", "to the CPU")}
LIBRARY = "methods/pml.py:loss"  # its losses and miners read their tensors


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images"), 8, 4)


@pytest.mark.parametrize("case", CASES)
def test_a_training_on_a_gpu_equals_that_on_a_cpu(
    case: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(images.parent / "cache"))
    method, *words = case.split()
    file = Path(f"experiments/{method}_demo.yaml")
    plan = read_experiment(file, [*toy_words(images, 1), *words]).experiment

    def run(name: str, runtime: Runtime) -> dict[str, float]:
        folder = RunFolder(tmp_path / name)
        return run_training(plan, folder, lambda _: None, runtime, with_zero_shot=False).metrics

    with fake_gpu() as waits:
        found = run("gpu", Runtime(GPU, threads=1))
        noted = dict(waits)
    if plan.budget.precision != "auto":  # bfloat16 and float32
        assert found == pytest.approx(run("cpu", Runtime(CPU)), abs=1e-6)
    assert not [
        wait
        for wait in noted
        if wait.in_step and wait.place != LIBRARY and (wait.place, wait.what) not in GROUPED
    ]
    elsewhere = {wait.place for wait in noted if not wait.in_step} - {*BETWEEN_STEPS, LIBRARY}
    assert not {
        place
        for place in elsewhere
        if not place.startswith("evaluation/") and place.split(":")[1] not in METRIC_HOOKS
    }


def test_a_wait_in_a_step_is_recorded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dmlray.methods.proxy_anchor import Learner

    loss = Learner.loss

    def waiting(self: Learner, outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> object:
        assert outputs["embeddings"].sum().item() is not None
        return loss(self, outputs, labels)

    monkeypatch.setattr(Learner, "loss", waiting)
    monkeypatch.setenv("DMLRAY_CACHE", str(images.parent / "cache"))
    file, words = Path("experiments/proxy_anchor_demo.yaml"), toy_words(images, 1)
    plan = read_experiment(file, words).experiment
    with fake_gpu() as waits:
        run_training(plan, RunFolder(tmp_path), lambda _: None, Runtime(GPU), with_zero_shot=False)
        assert any(wait.in_step and wait.what == "item" for wait in waits)


def test_all_epochs_are_uploaded_on_one_stream(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(images.parent / "cache"))
    words = [*toy_words(images, 3), "protocol.selection=validation", "protocol.folds=2"]
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment
    loader._upload_stream.cache_clear()
    with fake_gpu():
        made, stream = list[object](), vars(torch.cuda)["Stream"]

        def counted(*_: Any) -> Any:
            made.append(0)
            return stream()

        monkeypatch.setattr(torch.cuda, "Stream", counted)
        run_training(plan, RunFolder(tmp_path), lambda _: None, Runtime(GPU), with_zero_shot=False)
        monkeypatch.undo()
    loader._upload_stream.cache_clear()
    assert len(made) == 1


def test_the_fake_refuses_what_cuda_refuses_and_records_waits() -> None:
    here = torch.arange(4.0)
    with fake_gpu() as waits:
        there = here.to("cuda")
        assert isinstance(there, FakeTensor)
        assert there.device == GPU
        for mix in (partial(torch.add, there, here), partial(torch.stack, [here, there])):
            with pytest.raises(DeviceMixError):
                mix()
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        assert torch.equal(there.cpu(), here)
        waits.clear()
        for ask in (
            lambda: there.sum().item(),
            lambda: bool(there.any()),
            lambda: there.tolist(),
            lambda: there.cpu(),
            lambda: there.nonzero(),
            lambda: there[there > 1],
            lambda: torch.tensor([1.0], device="cuda"),
        ):
            ask()
            assert waits, ask
            waits.clear()
        (there * 2 + torch.ones(4, device="cuda")).sum()
        assert not waits
