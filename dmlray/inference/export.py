"""A finished run -> a folder that others can use: tensors, description, card, ONNX graph."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmlray.atomic_files import write_text
from dmlray.data.folds import train_subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.inference.from_run import members_behind
from dmlray.inference.image_list import Sources, list_images
from dmlray.inference.load import load_model
from dmlray.inference.model import Model
from dmlray.inference.model_card import model_card
from dmlray.inference.model_files import (
    CARD,
    ONNX,
    halved,
    is_model,
    write_model,
    write_modules,
)
from dmlray.inference.onnx_export import OPSET, require_packages, write_onnx
from dmlray.learn.class_split import load_dataset
from dmlray.local_paths import path_of

_CHECKED = 32  # images that the graph, and float16, are checked on


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its vectors may be off; None where that was not measured."""

    folder: Path
    model: Model
    onnx_difference: float | None = None
    half_difference: float | None = None
    images: int = 0


def export(
    run: str | Path,
    out: str | Path,
    *,
    onnx: bool = False,
    half: bool = False,
    images: Sources | None = None,
) -> Exported:
    """Write the model of a finished run into the new folder `out`, whole or not at all.

    Args:
        run: Folder of a finished training, ensemble or merge.
        out: New folder.
        onnx: Also write `embed.onnx`, checked against torch on real images.
        half: Keep weights in float16.
        images: Folder or table of images to check with; default: test images of the run.

    Raises:
        DmlrayError: If the run has no model, the folder exists, or a check fails.
    """
    folder, source = path_of("out", out), path_of("run", run)
    _require_new(folder)
    if onnx:
        require_packages()
    model = load_model(source)
    checked = _listed(images) if images is not None else _test_images(source, needed=onnx)
    before = model.embed(checked, device="cpu") if half and checked else None
    if half:
        model = _rounded(model)
    off = None if before is None else _difference(model.embed(checked, device="cpu"), before)
    with _new_folder(folder) as made:
        graph = _write(model, made, half, checked if onnx else [])
    return Exported(folder, model, graph, off, len(checked))


def _write(model: Model, folder: Path, half: bool, checked: list[Path]) -> float | None:
    """Write all files; with a graph where there are images that it is `checked` on."""
    write_model(model, folder, half)
    write_modules(folder)
    difference = write_onnx(model, folder / ONNX, checked) if checked else None
    graph = None if difference is None else onnx_line(difference, len(checked))
    write_text(folder / CARD, model_card(model, graph, half))
    return difference


def onnx_line(difference: float, images: int) -> str:
    """How a graph was checked, in words."""
    return f"opset {OPSET}, differs from torch by at most {difference:.1e} on {images} real images"


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def _rounded(model: Model) -> Model:
    """The model with the weights that a file of float16 gives back."""
    state = model.network.state_dict()
    model.network.load_state_dict({name: halved(tensor) for name, tensor in state.items()})
    return Model(model.config, model.network)


def _listed(images: Sources) -> list[Path]:
    return [Path(file) for file in list_images(images)["path"].slice(0, _CHECKED).to_pylist()]


def _test_images(run: Path, needed: bool) -> list[Path]:
    """Some test images of the run, evenly spread; none where they are not on this machine.

    Raises:
        ConfigError: If there are none and they are `needed`.
    """
    try:
        if is_model(run):
            raise DataError("a model has no images of its own")
        dataset = load_dataset(members_behind(run)[0].plan)
    except DmlrayError as error:
        if not needed:
            return []
        problem = f"the graph must be checked on real images, but {error}"
        raise ConfigError("images", [f"{problem}. Allowed: a folder of images"]) from None
    rows = (test_subset(dataset) or train_subset(dataset)).rows  # all classes may train
    chosen = np.unique(np.linspace(0, len(rows) - 1, _CHECKED).round().astype(int))
    return [dataset.root / dataset.files[row] for row in rows[chosen]]


def _require_new(folder: Path) -> None:
    if os.path.lexists(folder):
        raise ConfigError(str(folder), ["exists. Allowed: a new folder"])


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder, which takes the name `folder` when the block succeeds."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        problem = f"cannot be made ({error.strerror})"
        raise ConfigError(str(folder), [f"{problem}. Allowed: another folder"]) from None
    try:
        yield made
        made.chmod(0o777 & ~_umask())
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
