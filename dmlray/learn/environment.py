"""environment.json: versions, hardware and data that results depend on besides the plan."""

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
    """Return the installed versions of the packages that compute."""
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
    """Write versions, commit, seed, the data's fingerprint and, for a training, its device.

    Existing entries are kept: a later session appends what has changed to the list `resumed`.

    Raises:
        DataError: If the images have changed since the run began.
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
        now["device"] = device_name(runtime.device)
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
    """Check that the images are those that the run in `folder` began with.

    Raises:
        DataError: If they have changed.
    """
    _begun(folder, dataset)


def recorded_fingerprint(folder: RunFolder) -> str | None:
    """Return the fingerprint of the data that the run in `folder` began with, if it is known.

    Raises:
        DataError: If environment.json is damaged.
    """
    return _read(folder.environment).get("dataset_fingerprint")


def _begun(folder: RunFolder, dataset: Dataset) -> dict[str, Any]:
    """Read what the first session wrote, {} without one; check that the images are the same."""
    begun = _read(folder.environment)
    before = begun.get("dataset_fingerprint")
    if begun and begun.get("fingerprint_format") != FINGERPRINT_FORMAT:
        began = "began with another version of dmlray"
        _logger.warning("%s: %s; its images cannot be compared with those now", folder, began)
    elif begun and before != dataset.fingerprint:
        raise DataError(
            f"{folder}: the images changed since the run began (fingerprint {before}, now "
            f"{dataset.fingerprint}). Allowed: resume with the old images, or a new run"
        )
    return begun


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
        if not all(isinstance(part, dict) for part in (content, *content.get("resumed", []))):
            raise TypeError("holds other content")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problem = f"is damaged ({reason}). Delete it to continue without comparing the images"
        raise DataError(f"{path}: {problem}") from None
    return content


def _computing(how: Precision) -> dict[str, Any]:
    """Return the precision of the computation and, for a GPU, the libraries."""
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
    """Describe the GPU and the libraries that results depend on; empty for a CPU."""
    if device.type != "cuda":
        return ""
    found = _gpu_versions()
    libraries = f"CUDA {found['cuda']}, cuDNN {found['cudnn']}, driver {found['driver']}"
    return f"{device_name(device)}, {libraries}"


def device_name(device: torch.device) -> str:
    """The GPU, or the kind of CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.processor() or platform.machine()}"


def _commit() -> str | None:
    """Return the commit of the checkout that dmlray runs from, None if it is installed."""
    here = Path(__file__).parents[1]
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    top, _, commit = answer.stdout.strip().partition("\n")
    return commit if Path(top) == here.parent else None
