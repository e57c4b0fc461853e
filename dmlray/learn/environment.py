"""environment.json: what a number may depend on besides its plan."""

import logging
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dmlray.atomic_files import write_json
from dmlray.data.dataset import FINGERPRINT_FORMAT, Dataset
from dmlray.errors import DataError
from dmlray.file_reading import read_json
from dmlray.learn.device import driver
from dmlray.learn.precision import Precision, float32_products
from dmlray.learn.runtime import Runtime
from dmlray.plans.run_folder import RunFolder

_logger = logging.getLogger(__name__)
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


def record_environment(
    folder: RunFolder,
    seed: int,
    dataset: Dataset,
    runtime: Runtime | None = None,
    computing: Precision | None = None,
) -> None:
    """Write versions, commit, seed, the data's fingerprint and, where a learner trains, its device.

    What is there stays: a later session adds to the list `resumed` what is not as it was before.

    Raises:
        DataError: If the images are not those that the run began with.
    """
    begun = _begun(folder, dataset)
    now: dict[str, Any] = {
        "versions": versions(),
        "git_commit": _commit(),
        "seed": seed,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "fingerprint_format": FINGERPRINT_FORMAT,
    }
    if runtime:
        now["device"] = _device_name(runtime.device)
        now["cpu_threads"] = torch.get_num_threads()
    if computing:
        now |= _computing(computing)
    content = {**now, **begun}
    resumed = content.get("resumed", [])
    last = {key: value for part in (content, *resumed) for key, value in part.items()}
    changed = {key: value for key, value in now.items() if last[key] != value}
    if changed:
        content["resumed"] = [*resumed, changed]
    if content != begun:
        write_json(folder.environment, content)


def check_images(folder: RunFolder, dataset: Dataset) -> None:
    """Compare the images with those that the run in `folder` began with.

    Raises:
        DataError: If they are others.
    """
    _begun(folder, dataset)


def _begun(folder: RunFolder, dataset: Dataset) -> dict[str, Any]:
    """What the first session wrote, if there was one, about the images that there are now."""
    begun = _read(folder.environment)
    before = begun.get("dataset_fingerprint")
    if begun and begun.get("fingerprint_format") != FINGERPRINT_FORMAT:
        began = "began with another version of dmlray"
        _logger.warning("%s: %s; its images cannot be compared with those now", folder, began)
    elif begun and before != dataset.fingerprint:
        raise DataError(
            f"{folder}: the images changed since the run began (fingerprint {before}, now "
            f"{dataset.fingerprint}). Allowed: go on with the old images, or begin a new run"
        )
    return begun


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
        if not all(isinstance(part, dict) for part in (content, *content.get("resumed", []))):
            raise TypeError("holds something else")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problem = f"is damaged ({reason}). Delete it to go on without comparing the images"
        raise DataError(f"{path}: {problem}") from None
    return content


def _computing(how: Precision) -> dict[str, Any]:
    """In what precision, and on a GPU by which libraries, numbers are computed."""
    found: dict[str, Any] = {"training_precision": how.training}
    found["evaluation_precision"] = how.evaluation
    if how.device == "cuda":
        with how.train():
            found["float32_products"] = float32_products()
        found |= {"cudnn_benchmark": how.benchmark, **_gpu_versions()}
    return found


def _gpu_versions() -> dict[str, Any]:
    cudnn = torch.backends.cudnn.version()
    return {"cuda": torch.version.cuda, "cudnn": cudnn, "driver": driver()}


def computed_on(device: torch.device) -> str:
    """The GPU `device` and the libraries that its numbers depend on; empty for a CPU."""
    if device.type != "cuda":
        return ""
    found = _gpu_versions()
    libraries = f"CUDA {found['cuda']}, cuDNN {found['cudnn']}, driver {found['driver']}"
    return f"{_device_name(device)}, {libraries}"


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
