"""Actor that trains members on a share of a GPU or on a CPU core."""

from contextlib import closing, suppress

import ray
import torch

from dmlray.cluster.ensemble.actor_pool import USABLE, Memory
from dmlray.cluster.error_messages import out_of_memory_on_top
from dmlray.cluster.reporters import EpochLogger
from dmlray.errors import ResourceError
from dmlray.learn import metrics_log
from dmlray.learn.class_split import Listed, listed_once
from dmlray.learn.device import device_of, loader_threads, set_threads
from dmlray.learn.loop import Epoch, Report
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores


class Worker:
    """Trains members one by one; keeps no state of a member.

    Attributes:
        problem: Why torch cannot use the actor's GPU, or empty. Such an actor is kept: while it
            holds the GPU, no other actor gets it.
    """

    def __init__(self) -> None:
        has = ray.get_runtime_context().get_assigned_resources()
        self._gpus, self._cpus = has.get("GPU", 0.0), max(1, int(has.get("CPU", 1)))
        self.problem = ""
        self._listed: Listed = {}
        try:
            self._device = device_of(self._gpus > 0)
        except ResourceError as error:
            self.problem = str(error)

    def train(self, plan: Experiment, folder: RunFolder, with_zero_shot: bool) -> None:
        """Train in `folder`, or resume there; the results are files."""
        with closing(EpochLogger(plan, folder)) as logger:
            logger.finish(self._job(plan, folder, logger, with_zero_shot))

    def probe(self, plan: Experiment, folder: RunFolder, with_zero_shot: bool) -> Memory | None:
        """Train one epoch in `folder`, which is kept, and measure GPU memory; None on a CPU."""
        if self._device.type != "cuda":
            return None
        finished = len(metrics_log.read(folder.metrics))

        def report(epoch: Epoch) -> None:
            if epoch.number > finished:
                raise _ProbeDone

        torch.cuda.empty_cache()  # of an earlier probe of another setting
        torch.cuda.reset_peak_memory_stats()
        with suppress(_ProbeDone):
            self._job(plan, folder, report, with_zero_shot)
        return _memory()

    def _job(
        self, plan: Experiment, folder: RunFolder, report: Report, with_zero_shot: bool
    ) -> Scores:
        set_threads(self._cpus)
        cap_memory(self._device, self._gpus)
        runtime = Runtime(self._device, loader_threads(self._device, self._cpus))
        with out_of_memory_on_top(), listed_once(self._listed):
            return run_training(plan, folder, report, runtime, with_zero_shot)


class _ProbeDone(Exception):  # noqa: N818  # control flow, no error
    """Ends the training of a probe after one epoch."""


def cap_memory(device: torch.device, share: float) -> None:
    """Limit a member to its share of GPU memory, so that it cannot exhaust that of others."""
    if device.type == "cuda" and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(USABLE * share, device)


def _memory() -> Memory:
    """Return the peak memory of this process, which is the only one on its GPU."""
    free, device = torch.cuda.mem_get_info()
    cached = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    return Memory(device - free + cached, device)
