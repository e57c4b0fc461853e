"""Fake members and actors without torch, whose processes start in a second."""

import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Plan:
    """Replaces the plan of an ensemble."""

    size: int
    settings: int = 1

    def member(self, index: int) -> Any:
        return SimpleNamespace(budget=SimpleNamespace(epochs=1))

    def setting(self, index: int) -> int:
        return index % self.settings


class Measured:
    """Unpickles as the driver's `Memory`, so that an actor need not import torch."""

    def __init__(self, gib: tuple[int, int]) -> None:
        self.gib = gib

    def __reduce__(self) -> Any:
        return _memory, self.gib


def _memory(*gib: int) -> Any:
    from dmlray.cluster.ensemble.actor_pool import Memory

    return Memory(*(size << 30 for size in gib))


class MemoryUsedUpError(Exception):
    """Unpickles as torch's OutOfMemoryError."""

    def __reduce__(self) -> Any:
        return _of_torch, ()


def _of_torch() -> Exception:
    import torch

    return torch.cuda.OutOfMemoryError("CUDA out of memory")


class FakeActor:
    """Logs each training with its GPU; subclasses set the memory."""

    memory: tuple[int, int] | None = None  # GiB of a member and of the device
    holds = 100  # members per GPU

    def probe(self, plan: Any, folder: Any, with_zero_shot: bool) -> Any:
        self.train(plan, folder, with_zero_shot, "probe")
        return Measured(self.memory) if self.memory else None

    def train(self, plan: Any, folder: Any, with_zero_shot: bool, what: str = "train") -> None:
        import ray

        assert with_zero_shot == (folder.path.name == "000")
        share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
        folder.path.mkdir(parents=True, exist_ok=True)
        with (folder.path / "log").open("a") as log:
            log.write(f"{what} {share:.2f} on {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        if share and 1 / share > self.holds + 0.5:
            raise MemoryUsedUpError


class TooLarge(FakeActor):
    memory = (30, 80)


class Grows(FakeActor):
    """Two fit, although the probe measures less."""

    memory = (2, 80)
    holds = 2


class GrowsTooMuch(FakeActor):
    """Only one fits, although the probe measures less."""

    memory = (2, 80)
    holds = 1


class NeverFits(FakeActor):
    holds = 0
