"""Worker processes of `test_torch_backend.py`, which join a process group."""

import json
import os
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ray._private.services import psutil

from dmlray.cluster.torch_backend import join, leave, register, remove_store


def meet(rank: int, host: str, stores: "SimpleQueue[Any]", root: Path) -> None:
    """Join as one of two; write the sum over the group and the addresses listened on."""
    if rank == 0:
        store = register(host, 2)
        stores.put(store)
    else:
        store = stores.get()
    join(store, host, "gloo", rank, 2, timedelta(seconds=60))
    total = torch.tensor([rank + 1])
    dist.all_reduce(total)
    sockets = psutil.Process(os.getpid()).net_connections("inet")
    listening = sorted({socket.laddr.ip for socket in sockets if socket.status == "LISTEN"})
    (root / f"{rank}.json").write_text(json.dumps([int(total), listening]))
    dist.barrier()
    leave()
    assert not dist.is_initialized()
    remove_store()
