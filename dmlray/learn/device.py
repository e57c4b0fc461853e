"""Where a learner computes."""

import torch


def default_device() -> torch.device:
    """The process's current GPU if it has one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def set_threads(threads: int) -> None:
    """Give this process so many CPU threads; numbers repeat for the same count."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
