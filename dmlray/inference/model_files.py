"""A model folder: `model.safetensors`, `config.json` and a model card. Reading it runs no code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dmlray.atomic_files import whole_file, write_json, write_text
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import open_regular, read_json, reason
from dmlray.inference.config import ModelConfig
from dmlray.inference.model import Model
from dmlray.inference.network import Network, build, fill, shape_problem
from dmlray.json_schema import checked

CONFIG, TENSORS, CARD, ONNX = "config.json", "model.safetensors", "README.md", "embed.onnx"
_MODULES = "modules.json"  # of sentence-transformers
_MODULE = {"idx": 0, "name": "0", "path": ""} | {
    "type": "dmlray.inference.sentence_transformer.ImageEmbedder"
}
_CONFIG = TypeAdapter(ModelConfig)
_FLOATS = ("F16", "F32", "F64")
_MOST_HALF = torch.finfo(torch.float16).max


def write_model(model: Model, folder: Path, half: bool = False) -> None:
    """Write tensors and description into a folder that exists; each file whole or not at all.

    Args:
        model: What is written.
        folder: Where, beside what is there.
        half: Keep float32 tensors in float16, but for those with numbers beyond its range.
    """
    plain = torch.contiguous_format  # copies, for tensors of a network may share memory
    state = model.network.state_dict().items()
    tensors = {name: tensor.cpu().clone(memory_format=plain) for name, tensor in state}
    packed = save({name: halved(t) if half else t for name, t in tensors.items()})
    with whole_file(folder / TENSORS) as temporary:
        temporary.write_bytes(packed)
    write_text(folder / CONFIG, model.config.model_dump_json(indent=2) + "\n")


def write_modules(folder: Path) -> None:
    """Write what makes a model folder a model of sentence-transformers as well."""
    write_json(folder / _MODULES, [_MODULE])


def halved(tensor: Tensor) -> Tensor:
    """The tensor in float16, if it is of float32 and within its range."""
    fits = tensor.dtype == torch.float32 and bool((tensor.abs() < _MOST_HALF).all())
    return tensor.half() if fits else tensor


def is_model(folder: Path) -> bool:
    """Whether `folder` holds a model, and not a run."""
    return (folder / CONFIG).is_file()


def read_model(folder: Path) -> Model:
    """The model in `folder`.

    Raises:
        DataError: If a file is missing, damaged, or of something else.
    """
    path = folder / CONFIG
    try:
        config = checked(_CONFIG, read_json(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no description of a model ({reason(error)})") from None
    network = _checked_network(folder, config)
    tensors = _read_tensors(folder / TENSORS)
    fill(network, tensors, str(folder / TENSORS))
    return Model(config, network)


def _checked_network(folder: Path, config: ModelConfig) -> Network:
    """The network, built once the shapes of the file's tensors are known to be its own.

    It is built without memory first: a description can name larger networks than there is memory.
    """
    shapes = _read_shapes(folder / TENSORS)
    branches = len({name.split(".")[1] for name in shapes if name.startswith("branches.")})
    if branches != len(config.branches):
        problem = f"holds {branches} branches, {CONFIG} names {len(config.branches)}"
        raise DataError(f"{folder / TENSORS}: {problem}")
    try:
        with torch.device("meta"):
            imagined = build(config)
    except ConfigError as error:
        raise DataError(f"{folder / CONFIG}: {error}") from None
    if difference := shape_problem(imagined, shapes):
        raise DataError(f"{folder / TENSORS}: {difference}")
    if (size := imagined.dimension) != config.dimension:
        problem = f"dimension: {config.dimension} is not allowed. Allowed: {size}"
        raise DataError(f"{folder / CONFIG}: {problem}, as its branches have")
    return build(config)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        open_regular(path).close()
        with safe_open(str(path), "pt") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    except SafetensorError as error:
        text = str(error).splitlines()[0]
        raise DataError(f"{path}: is no safetensors file or is damaged ({text})") from None


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the header alone; sizes must agree with the file's."""
    with _opened(path) as file:
        shapes = {}
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in (*_FLOATS, "I64"):
                problem = f"{name} holds {part.get_dtype()}. Allowed: {', '.join(_FLOATS)}, I64"
                raise DataError(f"{path}: {problem}")
            shapes[name] = tuple(part.get_shape())
        return shapes


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
