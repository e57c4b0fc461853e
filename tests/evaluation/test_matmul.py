from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dmlray.evaluation import matmul
from dmlray.evaluation.matmul import add_product
from tests.evaluation import slow


@pytest.fixture
def exact_again() -> Iterator[None]:
    matmul.onednn_is_exact.cache_clear()
    yield
    matmul.onednn_is_exact.cache_clear()


@pytest.fixture(params=["highest", "high", "medium"])
def asked_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def test_products_are_exact_whatever_precision_training_uses(asked_precision: str) -> None:
    rows = slow.unit_rows(0, 300, 512)
    block = add_product(torch.empty(100, 300), rows[:100], rows)
    error = (block - rows[:100].double() @ rows.double().T).abs().max()
    assert error < matmul.MOST_ERROR
    assert torch.get_float32_matmul_precision() == asked_precision


def test_a_product_is_added_with_its_weight() -> None:
    rows, block = slow.unit_rows(0, 20).double(), torch.ones(20, 20).double()
    add_product(block, rows, rows, beta=1, weight=3)
    torch.testing.assert_close(block, 1 + 3 * rows @ rows.T)


def test_autocast_around_an_evaluation_does_not_round_it() -> None:
    rows = slow.unit_rows(0, 64, 512)
    with torch.autocast("cpu", torch.bfloat16):
        block = add_product(torch.empty(64, 64), rows, rows)
    assert (block - rows.double() @ rows.double().T).abs().max() < matmul.MOST_ERROR


def test_a_cpu_that_really_rounds_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, exact_again: None
) -> None:
    monkeypatch.setattr(matmul, "MOST_ERROR", 0.0)
    assert not matmul.onednn_is_exact()
    asked: list[Any] = []
    monkeypatch.setattr(matmul, "_precision", _recorder(matmul._precision, asked))
    rows = slow.unit_rows(0, 5)
    add_product(torch.empty(5, 5), rows, rows)
    assert asked == ["ieee"]


def test_a_torch_without_the_switch_still_multiplies(
    monkeypatch: pytest.MonkeyPatch, exact_again: None
) -> None:
    monkeypatch.setattr(matmul, "_switch", lambda device: None)
    rows = slow.unit_rows(0, 50)
    torch.testing.assert_close(add_product(torch.empty(50, 50), rows, rows), rows @ rows.T)


@pytest.mark.parametrize("switched_on_by", ["default", "allow_tf32", "fp32_precision"])
def test_a_gpu_scores_in_float32_though_training_asked_for_tf32(switched_on_by: str) -> None:
    switch = torch.backends.cuda.matmul
    asked = "tf32"
    try:
        if switched_on_by == "default":
            asked = switch.fp32_precision
        else:
            setattr(switch, switched_on_by, {"allow_tf32": True}.get(switched_on_by, "tf32"))
        with matmul._precision("cuda", "ieee"):
            assert switch.fp32_precision == "ieee"
        assert switch.fp32_precision == asked
        with pytest.raises(RuntimeError), matmul._precision("cuda", "ieee"):
            raise RuntimeError
        assert switch.fp32_precision == asked
    finally:
        torch.set_float32_matmul_precision("highest")
        switch.fp32_precision = "none"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_a_gpu_are_exact_whatever_precision_training_uses(asked_precision: str) -> None:
    rows = slow.unit_rows(0, 300, 512).cuda()
    block = add_product(torch.empty(300, 300, device="cuda"), rows, rows)
    assert (block - rows.double() @ rows.double().T).abs().max() < matmul.MOST_ERROR


def _recorder(precision: Any, asked: list[Any]) -> Any:
    def recorded(device: Any, setting: Any) -> Any:
        asked.append(setting)
        return precision(device, setting)

    return recorded
