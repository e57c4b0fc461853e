"""environment.json: what a number may depend on besides its plan."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dmlray.data.dataset import Dataset
from dmlray.learn.device import driver
from dmlray.learn.precision import arithmetic, float32_products
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.storage import write_json

PACKAGES = (
    "dmlray",
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "faiss-gpu",
    "faiss-cpu",
    "numpy",
    "timm",
)


def versions() -> dict[str, str]:
    """Installed versions of what computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_environment(path: Path, plan: Experiment, dataset: Dataset, place: Place) -> None:
    """Write versions, commit, device, seed and the data's fingerprint."""
    content: dict[str, Any] = {
        "versions": versions(),
        "git_commit": _commit(),
        "device": _device_name(place.device),
        "cpu_threads": torch.get_num_threads(),
        **_computing(plan, place.device),
        "seed": plan.seed,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
    }
    write_json(path, content)


def _computing(plan: Experiment, device: torch.device) -> dict[str, Any]:
    """In what precision, and on a GPU by which libraries, numbers are computed."""
    how = arithmetic(plan.budget, device)
    found: dict[str, Any] = {"training_precision": how.training}
    found["evaluation_precision"] = how.evaluation
    if device.type == "cuda":
        with how.train():
            found["float32_products"] = float32_products()
        found |= {"cudnn_benchmark": how.benchmark, "cuda": torch.version.cuda}
        found |= {"cudnn": torch.backends.cudnn.version(), "driver": driver()}
    return found


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.processor() or platform.machine()}"


def _commit() -> str | None:
    """The commit of the checkout that dmlray runs from, None when it was installed."""
    here = Path(__file__).parents[1]
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    top, _, commit = answer.stdout.strip().partition("\n")
    return commit if Path(top) == here.parent else None
