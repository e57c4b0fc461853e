"""torch's process group for the workers of one Ray Train run, closed to other users.

torch's store listens on every interface and lets everyone read, write and join. Therefore one
worker has no group; on one machine the store is a file in a private folder, and the sockets of the
group listen on loopback only; across machines the store listens on the Ray address of the first
worker's node.

Whether NCCL is used follows from the workers' GPU share. gloo is always a backend: by default torch
uses only NCCL if it sees a GPU, and NCCL does not support CPU tensors.

Workers import torch here as they need it: the controller of Ray Train imports this module, too.
"""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private.services import psutil  # a dependency of Ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

from dmlray.cluster.private_folder import private_folder

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_LOOPBACK = "127.0.0.1"
_CPU, _CPU_AND_GPU = "gloo", "cpu:gloo,cuda:nccl"  # backends
_LEAVE_TIMEOUT = 30.0  # seconds


@dataclass
class TorchBackendConfig(BackendConfig):  # type: ignore[misc]  # Ray has no types
    """`backend_config` of a `Trainer`.

    Args:
        backend: A backend of torch; None: gloo, and NCCL beside it for workers with GPUs.
        timeout_s: Seconds that an operation of the group may take.
    """

    backend: str | None = None
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Any]:
        """The backend that this configures."""
        return _Backend

    @property
    def train_func_context(self) -> type[Any]:
        """Selects the worker's GPU, one of those of all workers on its node."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager  # type: ignore[no-any-return]


class _Backend(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True  # NCCL exchanges data directly between visible GPUs

    def on_start(self, worker_group: Any, backend_config: TorchBackendConfig) -> None:
        """Let the workers of a run join the group, if there are several."""
        workers = worker_group.get_workers()
        if len(workers) == 1:
            return
        hosts = [worker.metadata.node_ip for worker in workers]
        if len({worker.metadata.node_id for worker in workers}) == 1:
            hosts = len(workers) * [_LOOPBACK]
        # A reference, as this process would import torch to read it.
        open_store = worker_group.execute_single_async(0, register, hosts[0], len(workers))
        gpu = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        backend = backend_config.backend or (_CPU_AND_GPU if gpu else _CPU)
        limit = timedelta(seconds=backend_config.timeout_s)
        joining = [
            worker_group.execute_single_async(
                rank, join, open_store, host, backend, rank, len(workers), limit
            )
            for rank, host in enumerate(hosts)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: TorchBackendConfig) -> None:
        """Leave the group, then remove its store, which others use until they have left."""
        with suppress(GetTimeoutError):  # of a worker that hangs
            ray.get(worker_group.execute_async(leave), timeout=_LEAVE_TIMEOUT)
        worker_group.execute_single(0, remove_store)


_kept = ExitStack()  # the store of this process


def register(host: str, size: int) -> "Callable[[], Store]":
    """Create the group's store, a file if `host` is loopback; return a function that opens it."""
    from torch._C._distributed_c10d import FileStore, TCPStore

    if host == _LOOPBACK:
        folder = _kept.enter_context(private_folder(Path(tempfile.gettempdir())))
        return partial(FileStore, str(folder / "store"), size)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    client = partial(TCPStore, host, listening.getsockname()[1], size)
    server = client(True, wait_for_workers=False, master_listen_fd=listening.detach())
    _kept.enter_context(nullcontext(server))
    return client


def leave() -> None:
    """Leave this process's default group, if it is in one."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def remove_store() -> None:
    """Remove the store of this process, if it has one."""
    _kept.close()


def join(
    open_store: "Callable[[], Store]",
    host: str,
    backend: str,
    rank: int,
    size: int,
    timeout: timedelta,
) -> None:
    """Join this process's default group as worker `rank` of `size`."""
    import torch.distributed as dist

    if interface := _interface(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if host == _LOOPBACK:  # else NCCL chooses the fastest network
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    dist.init_process_group(
        backend, store=open_store(), rank=rank, world_size=size, timeout=timeout
    )


def _interface(host: str) -> str | None:
    """Return the network interface with the address `host`."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == host for entry in addresses):
            return str(name)
    return None
