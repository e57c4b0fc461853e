"""Where a learner computes."""

import torch

_MOST_LOADER_THREADS = 16  # more than a GPU takes images from; each holds memory


def default_device() -> torch.device:
    """The process's current GPU if it has one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def set_threads(threads: int) -> None:
    """Give this process so many CPU threads; numbers repeat for the same count."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def loader_threads(device: torch.device, cpus: int) -> int:
    """Threads that prepare a GPU's batches on `cpus` cores, of which one drives the GPU.

    None for a CPU: it computes on the same cores.
    """
    return min(cpus - 1, _MOST_LOADER_THREADS) if device.type == "cuda" and cpus > 1 else 0
