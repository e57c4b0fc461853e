"""Data sets whose images this machine draws itself, once."""

from collections.abc import Callable
from pathlib import Path

from dmlray.data.cache.atomic_dir import final_path, make_whole
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import folder
from dmlray.errors import ConfigError


def load_drawn(name: str, version: int, root: Path | None, draw: Callable[[Path], None]) -> Dataset:
    """List the data set `name`; the first call on a machine draws it.

    Args:
        name: Data set.
        version: Of the drawings: those of another are left alone.
        root: The user's data.root, which must be None.
        draw: Draws a folder per class into an empty folder.

    Raises:
        ConfigError: If there is a root.
    """
    if root is not None:
        raise ConfigError("data.root", [f"data set '{name}' draws its own images. Leave it out."])
    target = final_path(f"{name}-{version}")
    make_whole(target, Path.is_dir, draw)
    return folder.read(name, target)
