"""Load tensors from files into networks: names and shapes are checked, no code is executed."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dmlray import tensor_files
from dmlray.backbones.state_dicts import Candidate, State, candidates
from dmlray.errors import DataError

_logger = logging.getLogger(__name__)
Rename = Callable[[State], Mapping[str, Tensor]]

# Stored by some versions of a network and computed by others; neither trained nor read.
_COMPUTED = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")


class Fit(NamedTuple):
    """Comparison of a state dict with a network: it can be loaded if `problems` is empty."""

    candidate: Candidate
    state: Mapping[str, Tensor]
    problems: list[str]
    unused: list[str]


def is_file(weights: str) -> bool:
    """Whether `weights` is the path of a file."""
    return weights not in ("pretrained", "none")


def read_weights(path: Path) -> Any:
    """Read a file of tensors of any structure.

    Raises:
        DataError: If there is no such file or it holds something else.
    """
    try:
        return tensor_files.read_tensors(path)
    except FileNotFoundError:
        allowed = "Allowed: pretrained, none, or a file"
        raise DataError(f"backbone.weights: {path}: no such file. {allowed}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def load_file(
    module: nn.Module,
    path: Path,
    spare: Sequence[str],
    renames: Sequence[Rename] = (dict,),
    absent: Sequence[str] = (),
) -> None:
    """Load the weights of `module` from a file in any usual wrapping: all or none.

    State dicts are searched below the keys of training checkpoints and with the prefixes of
    wrapping modules removed; the choice is logged unless the file is a plain state dict.

    Args:
        module: Network that takes the weights.
        path: File in any usual wrapping.
        spare: Prefixes of names that the file may have in addition, such as a classifier's.
        renames: Translations to the names and shapes of `module`, tried in turn; they may raise.
        absent: Prefixes of names in `module` that the file may lack, as they are not used.

    Raises:
        DataError: If there is no such file, it holds something else or does not fit.
    """
    fits = [
        fit
        for candidate in candidates(read_weights(path))
        for rename in renames
        if (fit := _fit(module, candidate, rename, spare, absent))
    ]
    if not fits:
        raise DataError(f"{path}: holds no mapping of names to tensors, as a state dict is")
    fit = next((fit for fit in fits if not fit.problems), None)
    if fit is None:
        nearest = max(fits, key=lambda fit: len(module.state_dict().keys() & fit.state.keys()))
        raise DataError(f"{path}: does not fit this backbone: {'; '.join(nearest.problems)}")
    _check_finite(path, fit.state)
    own = module.state_dict()
    module.load_state_dict({k: v for k, v in fit.state.items() if k in own}, strict=False)
    _log_choice(path, fit)


def _fit(
    module: nn.Module,
    candidate: Candidate,
    rename: Rename,
    spare: Sequence[str],
    absent: Sequence[str],
) -> Fit | None:
    """Compare a candidate with `module`; None if it cannot be renamed or has unusable tensors."""
    if any(tensor_files.unusable(tensor) for tensor in candidate.state.values()):
        return None
    try:
        state = rename(dict(candidate.state))
    except Exception:  # on files of other networks renamings raise many types
        return None
    own = module.state_dict()
    parts = {key.partition(".")[0] for key in own}
    extra = [key for key in state if key not in own and not key.endswith(_COMPUTED)]
    # A top-level part that the network lacks belongs to a head; additional tensors within one of
    # its parts mean that the file is of a larger network.
    unused = [k for k in extra if k.startswith(tuple(spare)) or k.partition(".")[0] not in parts]
    lacking = [key for key in own if key not in state and not key.endswith(_COMPUTED)]
    problems = {
        "missing": [key for key in lacking if not key.startswith(tuple(absent))],
        "unexpected": [key for key in extra if key not in unused],
        "misshapen": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    listed = [f"{label} {_first(keys)}" for label, keys in problems.items() if keys]
    return Fit(candidate, state, listed, unused)


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"{path}: {name} holds NaN or infinite numbers")


def _log_choice(path: Path, fit: Fit) -> None:
    """Log which tensors of the file were used, unless it is a plain state dict."""
    candidate, unused = fit.candidate, fit.unused
    if not (candidate.container or candidate.prefix or candidate.others):
        return
    rest = f"; {candidate.others} others are not used" if candidate.others else ""
    rest += f"; not used: {_first(unused)}" if unused else ""
    _logger.warning(
        "backbone.weights: %s: %d tensors used, %s%s", path, len(fit.state), candidate, rest
    )


@contextmanager
def silenced(progress: bool = False) -> Iterator[None]:
    """Suppress output of libraries while they build and download.

    `progress` keeps stderr, which has the progress bars.
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


def _first(keys: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
