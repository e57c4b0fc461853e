"""Whether torch.compile works where a learner computes."""

from functools import lru_cache

import torch

from dmlray.errors import ResourceError


@lru_cache
def check_compiler(device: torch.device) -> None:
    """Compile something small: torch needs a C++ compiler, or for a GPU Triton.

    Raises:
        ResourceError: If that fails.
    """
    try:
        torch.compile(lambda numbers: numbers.sin() + 1)(torch.ones(4, device=device))
    except Exception as error:  # each of its parts has its own kinds
        reason = f"torch.compile does not work here ({type(error).__name__})"
        raise ResourceError(f"budget.compile: {reason}. Allowed here: false") from error
