"""One worker has no process group; several on one machine listen on loopback only."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.train import ScalingConfig
from torch.distributed.distributed_c10d import Backend, BackendConfig
from torch.multiprocessing import get_context

from dmlray.cluster.torch_backend import TorchBackendConfig, join
from dmlray.cluster.trainer import Trainer
from tests.cluster.group_workers import meet
from tests.processes import run_processes


def test_one_worker_joins_no_group() -> None:
    """The fake workers have no other attributes."""
    lonely = SimpleNamespace(get_workers=lambda: ["worker"])
    TorchBackendConfig().backend_cls().on_start(lonely, TorchBackendConfig())


@pytest.mark.parametrize(
    ("share", "asked", "devices"),
    [
        ({"CPU": 2}, None, {"cpu": "gloo"}),
        ({"CPU": 2, "GPU": 0}, None, {"cpu": "gloo"}),
        ({"CPU": 2, "GPU": 1}, None, {"cpu": "gloo", "cuda": "nccl"}),
        ({"CPU": 2, "GPU": 0.5}, "gloo", {"cpu": "gloo", "cuda": "gloo"}),  # folds share a GPU
    ],
)
def test_workers_exchange_cpu_tensors_also_on_machines_with_gpus(
    monkeypatch: pytest.MonkeyPatch,
    share: dict[str, float],
    asked: str | None,
    devices: dict[str, str],
) -> None:
    """Objects that workers exchange are CPU tensors."""
    backends = list[str]()
    node = SimpleNamespace(metadata=SimpleNamespace(node_ip="192.0.2.1", node_id="one"))
    workers = SimpleNamespace(
        get_workers=lambda: [node, node],
        get_resources_per_worker=lambda: share,
        execute_single_async=lambda rank, function, *given: (
            backends.append(given[2]) if function is join else None
        ),
    )
    monkeypatch.setattr("dmlray.cluster.torch_backend.ray.get", lambda futures: None)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda")
    )
    trainer = Trainer(
        print,
        backend_config=TorchBackendConfig(asked),
        scaling_config=ScalingConfig(num_workers=2, use_gpu=share.get("GPU", 0) > 0),
    )
    group = trainer.backend_config  # Ray's own TorchTrainer replaces None by NCCL alone
    group.backend_cls().on_start(workers, group)
    used = [BackendConfig(Backend(name or "undefined")).device_backend_map for name in backends]
    assert [{kind: map_[kind] for kind in devices if kind in map_} for map_ in used] == 2 * [
        devices
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "listening"),
    [
        ("127.0.0.1", [["127.0.0.1"], ["127.0.0.1"]]),  # the store is a file
        ("127.0.0.2", [["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]]),  # as across machines
    ],
)
def test_the_group_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, listening: list[list[str]]
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if host != "127.0.0.1":
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # settings of the user have priority
    queue = get_context("forkserver").SimpleQueue()
    run_processes(2, meet, host, queue, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [[3, addresses] for addresses in listening]
    assert not list(tmp_path.glob("*dml-*"))
