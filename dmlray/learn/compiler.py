"""Check that torch.compile works on a device."""

from functools import lru_cache

import torch

from dmlray.errors import ResourceError


@lru_cache
def check_compiler(device: torch.device) -> None:
    """Compile a small function: torch needs a C++ compiler, or Triton for a GPU.

    Raises:
        ResourceError: If that fails.
    """
    try:
        torch.compile(lambda numbers: numbers.sin() + 1)(torch.ones(4, device=device))
    except Exception as error:  # each part of the compiler raises other types
        reason = f"torch.compile does not work here ({type(error).__name__})"
        raise ResourceError(f"budget.compile: {reason}. Allowed here: false") from error
