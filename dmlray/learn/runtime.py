"""The device, threads and process group that a training computes on."""

from dataclasses import dataclass

import torch

from dmlray.learn.device import default_device, loader_threads
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class Runtime:
    """Where a learner computes; not part of any plan.

    Attributes:
        threads: Threads that prepare batches ahead; 0 prepares them in the loop.
        group: Processes that share each batch.
    """

    device: torch.device
    threads: int = 0
    group: ProcessGroup = SINGLE_PROCESS


def whole_machine() -> Runtime:
    """Return this process's device, with all CPU cores that torch uses here."""
    device = default_device()
    return Runtime(device, loader_threads(device, torch.get_num_threads()))
