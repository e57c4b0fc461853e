"""Find state dicts in training checkpoints and wrapped models."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

State = dict[str, Tensor]

CONTAINERS = (
    "state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "teacher",
    "student", "network", "net", "encoder", "backbone", "module", "learner",
)  # fmt: skip
"""Keys of a checkpoint that hold weights, preferred ones first (as in timm: averages)."""
WRAPPERS = (
    "module", "_orig_mod", "model", "backbone", "trunk", "network", "net", "encoder", "visual",
    "image_encoder", "encoder_q", "base_encoder", "online_encoder", "online_network", "teacher",
    "student", "momentum_encoder", "encoder_k",
)  # fmt: skip
"""Names of modules that wrap a network, preferred ones first if a file has several."""
_DEPTH = 3  # containers within containers


class Candidate(NamedTuple):
    """Tensors of a file below the keys `container` whose names begin with `prefix`."""

    container: str
    prefix: str
    state: State
    others: int  # tensors of the same container without the prefix

    def __str__(self) -> str:
        description = ", ".join(
            part
            for part in (
                self.container and f"those below {self.container}",
                self.prefix and f"without their prefix {self.prefix}",
            )
            if part
        )
        return description or "those at the top"


def candidates(content: Any) -> Iterator[Candidate]:
    """Yield possible state dicts of a network, the most likely first.

    Args:
        content: Content of a file of tensors: mappings, tensors, numbers and text.
    """
    for container, state in _containers(content, ""):
        for prefix in _prefixes(state):
            inner = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
            yield Candidate(container, prefix, inner, len(state) - len(inner))


def _containers(content: Any, path: str) -> Iterator[tuple[str, State]]:
    if not isinstance(content, Mapping) or path.count(".") >= _DEPTH:
        return
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for key in CONTAINERS:
        yield from _containers(content.get(key), f"{path}.{key}" if path else key)
    if state and all(isinstance(key, str) for key in state):
        yield path, state


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return prefixes to try: none, wrapping modules, and the common first part of all names."""
    prefixes = {prefix for name in state for prefix in _wrappers_of(name)}
    shared = next(iter(state)).split(".")[0] + "."
    if all(name.startswith(shared) for name in state):
        prefixes.add(shared)
    return ["", *sorted(prefixes, key=_rank)]


def _wrappers_of(name: str) -> Iterator[str]:
    prefix = ""
    for part in name.split(".")[:-1]:
        if part not in WRAPPERS:
            return
        prefix += f"{part}."
        yield prefix


def _rank(prefix: str) -> list[int]:
    parts = prefix.split(".")[:-1]
    return [WRAPPERS.index(part) if part in WRAPPERS else len(WRAPPERS) for part in parts]
