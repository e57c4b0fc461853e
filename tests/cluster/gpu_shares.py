"""Join the cluster at argv[1]; print what processes with and without a share of a GPU see."""

import json
import os
import sys
import tempfile
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig

from dmlray.cluster.ensemble.member_actor import Worker
from dmlray.cluster.node_checks import _inspect_all
from dmlray.cluster.session import session
from dmlray.cluster.torch_backend import TorchBackendConfig
from dmlray.cluster.trainer import Trainer


def sight(actor: Any = None) -> tuple[str | None, str, str]:
    """GPUs that this process sees, the device of a slot, and why torch cannot use it."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen, str(getattr(actor, "_device", "")), getattr(actor, "problem", "")


def slot(gpus: float) -> tuple[str | None, str, str]:
    actor = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus).remote()
    found: tuple[str | None, str, str] = ray.get(actor.__ray_call__.remote(sight))
    ray.kill(actor)
    return found


def training(folder: str) -> str | None:
    """What the worker of a training on the CPU sees."""
    trainer = Trainer(
        lambda: os.environ.get("CUDA_VISIBLE_DEVICES"),
        backend_config=TorchBackendConfig(),
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=folder),
    )
    seen: str | None = trainer.fit().return_value
    return seen


def main() -> None:
    with session(sys.argv[1]), tempfile.TemporaryDirectory() as folder:
        found = {
            "task": ray.get(ray.remote(num_cpus=0)(sight).remote()),
            "without": slot(0),
            "with": slot(0.5),
            "training": training(folder),
            "doctor": [node.unusable for node in _inspect_all([])],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
