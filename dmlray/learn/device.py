"""Choose a process's device and check that torch can use it.

`python -m dmlray.learn.device` checks every GPU that the process sees, for `dmlray doctor`.
"""

import subprocess
import sys
from functools import lru_cache

import torch

from dmlray.errors import ConfigError, ResourceError

_MOST_LOADER_THREADS = 16  # more do not help a GPU, and each uses memory
_DRIVERS = {12: "525.60", 13: "580.65"}  # oldest driver for each major version of CUDA, on Linux


def device_of(gpu: bool) -> torch.device:
    """Return the device of a process, given whether it has a share of a GPU.

    The share decides, not visibility: on a `ray start` cluster a process without a share sees
    every GPU of its node.

    Raises:
        ResourceError: If torch cannot use the GPU; the CPU is not a fallback.
    """
    if not gpu:
        return torch.device("cpu")
    check_gpu("cuda")
    return torch.device("cuda", torch.cuda.current_device())


def default_device() -> torch.device:
    """Return the current GPU if this process, which has no scheduler, sees one, else the CPU.

    Raises:
        ResourceError: If torch cannot use the GPU.
    """
    return device_of(torch.cuda.is_available())


def named_device(name: torch.device | str) -> torch.device:
    """The device of that name, such as cpu, cuda or cuda:1.

    Raises:
        ConfigError: If there is no such device.
        ResourceError: If torch cannot use the GPU.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            "device", [f"{name!r} is no device. Allowed: cpu, cuda, cuda:N"]
        ) from None
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            problem = f"{device} is not here: this process sees {torch.cuda.device_count()} GPUs"
            raise ConfigError("device", [problem])
        check_gpu(str(device))
    return device


def check_gpu(name: str) -> None:
    """Run one small kernel on the GPU `name`.

    Raises:
        ResourceError: If that fails; names the driver and the GPUs that this torch supports.
    """
    try:
        torch.ones(1, device=name).add_(1).item()
    except Exception as error:  # the type depends on the cause; some only occur in the kernel
        if "out of memory" in str(error):  # the GPU itself works
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        problem = f"torch cannot use this GPU ({reason})"
        raise ResourceError(f"{problem}. {gpu_support()}. Driver here: {driver()}") from error


def gpu_support() -> str:
    """Describe the GPUs and drivers that the installed torch supports, without a full stop."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA. Install one with it"
    oldest = _DRIVERS.get(int(torch.version.cuda.split(".")[0]))
    needed = f", which needs driver {oldest} or later" if oldest else ""
    built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}{needed}"
    return f"{built}, and for GPUs of {', '.join(torch.cuda.get_arch_list())}"


@lru_cache
def driver() -> str:
    """Return the version of this machine's NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = answer.stdout.split()
    return lines[0] if lines and not answer.returncode else "unknown"


def set_threads(threads: int) -> None:
    """Set the number of torch's CPU threads; results repeat for the same number."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def loader_threads(device: torch.device, cpus: int) -> int:
    """Return the number of loader threads on `cpus` cores, of which one drives the GPU.

    0 for a CPU, which computes on the same cores.
    """
    return min(cpus - 1, _MOST_LOADER_THREADS) if device.type == "cuda" and cpus > 1 else 0


def _check_all() -> int:
    """Print the problems of this machine's GPUs, one per line; return 1 if there are any."""
    problems = []
    for number in range(max(1, torch.cuda.device_count())):
        try:
            check_gpu(f"cuda:{number}")
        except Exception as error:
            problems.append(f"GPU {number}: {error}")
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(_check_all())
