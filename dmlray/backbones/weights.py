"""Tensors from files into networks: every name and shape is checked, nothing is executed."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from dmlray.errors import DataError


def is_file(weights: str) -> bool:
    """Whether `weights` names a file, and not a way to get along without one."""
    return weights not in ("pretrained", "none")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict, written by `torch.save` or as `.safetensors`.

    Raises:
        DataError: If there is no such file or it holds something else.
    """
    if not path.is_file():
        raise DataError(
            f"backbone.weights: {path}: no such file. Allowed: pretrained, none, or a file"
        )
    try:
        state = _load(path)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise DataError(f"{path}: is not a file of tensors ({type(error).__name__})") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: does not hold a plain mapping of names to tensors")
    return dict(state)


def load_tensors(
    module: nn.Module, state: Mapping[str, Tensor], source: str, spare: Sequence[str]
) -> None:
    """Copy `state` into `module`; keys that begin with one of `spare` may be extra.

    Raises:
        DataError: If names or shapes differ.
    """
    own = module.state_dict()
    # Files from before PyTorch 0.4.1 have no counters, and nothing reads them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own and not k.startswith(tuple(spare))]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    problems = [
        f"{label} {_first(keys)}"
        for label, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
        if keys
    ]
    if problems:
        raise DataError(f"{source}: does not fit this backbone: {'; '.join(problems)}")
    module.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


@contextmanager
def silenced(progress: bool = False) -> Iterator[None]:
    """Keep libraries from printing while they build and fetch: errors say what matters.

    `progress` lets through what goes to stderr, which is where progress bars are drawn.
    """
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    stderr = sys.stderr if progress else io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with redirect_stdout(io.StringIO()), redirect_stderr(stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _first(keys: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
