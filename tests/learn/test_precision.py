"""Precision of a training is resolved, recorded and restored after a kill."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from dmlray.errors import RunError
from dmlray.learn import environment, precision
from dmlray.learn.loop import Epoch
from dmlray.learn.precision import float32_products, precision_of
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import BudgetConfig, Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores, protocol_line, read_scores
from tests.epoch_logs import epochs_of
from tests.learn.fake_gpu import fake_gpu
from tests.toy_data import draw_images, toy_words

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    words = [*toy_words(draw_images(tmp_path / "images"), 3), "budget.precision=float16"]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.mark.parametrize(
    ("asked", "has_bfloat16", "on_gpu", "on_cpu"),
    [
        ("auto", True, "bfloat16, embeddings in tf32", "float32"),
        ("auto", False, "tf32", "float32"),
        ("float32", True, "float32", "float32"),
        ("tf32", True, "tf32", "float32"),
        ("bfloat16", True, "bfloat16, embeddings in tf32", "bfloat16, embeddings in float32"),
        ("float16", False, "float16, embeddings in tf32", "float16, embeddings in float32"),
    ],
)
def test_the_plans_precision_is_resolved_on_the_device(
    asked: str, has_bfloat16: bool, on_gpu: str, on_cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: has_bfloat16)
    precision._arithmetic.cache_clear()
    budget = BudgetConfig(precision=asked)
    assert [str(precision_of(budget, device)) for device in (GPU, CPU)] == [on_gpu, on_cpu]
    precision._arithmetic.cache_clear()


@pytest.mark.parametrize(
    ("asked", "training", "evaluation"),
    [("float32", "ieee", "ieee"), ("tf32", "tf32", "tf32"), ("bfloat16", "tf32", "tf32")],
)
def test_float32_products_of_a_gpu_are_set_and_restored(
    asked: str, training: str, evaluation: str
) -> None:
    before = float32_products(), torch.backends.cudnn.benchmark
    how = precision_of(BudgetConfig(precision=asked), GPU)
    for computing, expected in ((how.train, training), (how.evaluate, evaluation)):
        with computing():
            assert set(float32_products().values()) == {expected}
            assert torch.backends.cudnn.benchmark == (computing == how.train)
        with pytest.raises(KeyError), computing():
            raise KeyError
        assert before == (float32_products(), torch.backends.cudnn.benchmark)
    with precision_of(BudgetConfig(cudnn_benchmark=False), GPU).train():
        assert not torch.backends.cudnn.benchmark
    with precision_of(BudgetConfig(precision=asked), CPU).train():
        assert before == (float32_products(), torch.backends.cudnn.benchmark)


def test_a_killed_float16_training_resumes_with_its_loss_scale(
    plan: Experiment, tmp_path: Path
) -> None:
    def killed(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise RunError("killed")

    calm, torn, here = RunFolder(tmp_path / "calm"), RunFolder(tmp_path / "torn"), Runtime(CPU)
    expected = run_training(plan, calm, lambda _: None, here)
    with pytest.raises(RunError, match="killed"):
        run_training(plan, torn, killed, here)
    kept = torch.load(torn.last_checkpoint, weights_only=True)["progress"]
    assert kept["unscathed"] > 0 or kept["loss_scale"] != 65536.0
    assert run_training(plan, torn, lambda _: None, here) == expected
    assert epochs_of(torn.metrics) == epochs_of(calm.metrics)
    last, again = (torch.load(f.last_checkpoint, weights_only=True) for f in (calm, torn))
    assert last["progress"] == again["progress"]


def test_scores_and_environment_record_it_and_older_scores_are_read(
    plan: Experiment, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    scores = run_training(plan, folder, lambda _: None, Runtime(CPU))
    assert scores.precision == "float16, embeddings in float32"
    found = json.loads(folder.environment.read_text())
    assert found["training_precision"] == "float16"
    assert found["evaluation_precision"] == "float32"
    assert scores.computed_on == ""
    assert "cuda" not in found
    older = asdict(scores)
    del older["precision"], older["computed_on"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert read_scores(tmp_path / "older.json") == Scores(**{**asdict(scores), "precision": ""})


@pytest.mark.parametrize(
    ("asked", "products"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")]
)
def test_a_training_on_a_gpu_names_its_libraries_and_its_float32_products(
    asked: str, products: str, plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "driver", lambda: "580.82")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    folder = RunFolder(tmp_path / "run")
    words = {"budget.precision": asked, "budget.epochs": 1}
    with fake_gpu():
        scores = run_training(override(plan, "test", words), folder, lambda _: None, Runtime(GPU))
    assert scores.computed_on == "Fake GPU, CUDA 13.0, cuDNN 90000, driver 580.82"
    assert read_scores(folder.scores) == scores
    assert scores.computed_on in protocol_line(scores)
    found = json.loads(folder.environment.read_text())
    assert found["device"] == "Fake GPU"
    assert found["cudnn_benchmark"]
    assert (found["cuda"], found["cudnn"], found["driver"]) == ("13.0", 90000, "580.82")
    assert found["float32_products"] == {"matmul": products, "convolution": products}
