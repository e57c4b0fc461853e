"""The device follows from a process's share of a GPU, and that GPU must work."""

import subprocess
import sys

import pytest
import torch

from dmlray.errors import ResourceError
from dmlray.learn import device

CPU = torch.device("cpu")


def test_without_a_share_it_is_the_cpu_whatever_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.device_of(gpu=False) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize(
    "failure",
    [
        None,  # torch's own: no driver, or a torch without CUDA
        RuntimeError("The NVIDIA driver on your system is too old (found version 12040).\nUpdate"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nx"),
    ],
)
def test_a_share_that_torch_cannot_use_is_refused_with_what_it_can(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert failure
        raise failure

    if failure:
        monkeypatch.setattr(torch, "ones", fail)
    monkeypatch.setattr(device, "driver", lambda: "550.54.15")
    with pytest.raises(ResourceError) as caught:
        device.device_of(gpu=True)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("torch cannot use this GPU (")
    if failure:
        assert str(failure).split("\n")[0] in text
    if torch.version.cuda:
        assert f"CUDA {torch.version.cuda}" in text
        assert "needs driver " in text
        assert torch.cuda.get_arch_list()[0] in text
    assert text.endswith("Driver here: 550.54.15")


def test_a_gpu_without_free_memory_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(torch.OutOfMemoryError):
        device.device_of(gpu=True)


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in device.gpu_support()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_the_doctors_process_prints_each_unusable_gpu() -> None:
    command = [sys.executable, "-m", "dmlray.learn.device"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stdout.startswith("GPU 0: torch cannot use this GPU (")
    assert answer.stdout.count("\n") == 1
