"""Your own images: a folder written by `save_to_disk` of Hugging Face's package `datasets`.

Read as the Arrow streams that it holds, so that the package is not needed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import arrow_table, image_table, train_test
from dmlray.data.datasets.arrow_table import ArrowFile
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.data.datasets.table_columns import ImageTable
from dmlray.data.datasets.train_test import Keep, Split
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import read_json, reason

NAME = "huggingface"
STATE, SPLITS = "state.json", "dataset_dict.json"  # of a Dataset, of a DatasetDict


def load(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> Dataset:
    """List the images of the saved Dataset or DatasetDict `root`.

    The splits of a DatasetDict are the column `split`, unless there is one.

    Raises:
        ConfigError: If there is no root.
        DataError: As `arrow_table.read` and `image_table.load` do.
    """
    return image_table.load(NAME, _read(root), split, keep)


def find(root: Path | None, split: Split = "classes") -> DatasetListing:
    """List the images of a saved Dataset or DatasetDict; `problems` has what forbids their use."""
    return image_table.find(NAME, _read(root), split)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def _read(root: Path | None) -> ImageTable:
    if root is None:
        problem = "data set 'huggingface' needs a folder written by save_to_disk. Set data.root."
        raise ConfigError("data.root", [problem])
    source = Path(os.path.expanduser(root)).absolute()
    if not is_saved(source):
        problem = f"neither {STATE} nor {SPLITS} is there"
        raise DataError(f"{source}: {problem}. Expected a folder written by save_to_disk.")
    files = list(_files(source))
    if not files:
        raise DataError(f"{source}: has no images. Expected a saved Dataset with some.")
    return arrow_table.read(NAME, source, source, files)


def _files(source: Path) -> Iterator[ArrowFile]:
    if not (source / SPLITS).is_file():
        yield from (ArrowFile(source / name) for name in _data_files(source))
        return
    for split in _texts(source / SPLITS, "splits"):
        yield from (ArrowFile(source / split / name, split) for name in _data_files(source / split))


def _data_files(folder: Path) -> list[str]:
    return _texts(folder / STATE, "_data_files", "filename")


def _texts(path: Path, key: str, inner: str | None = None) -> list[str]:
    """Read a list of names, each below `inner` if that is given."""
    try:
        found: list[Any] = read_json(path)[key]
        names = [item[inner] if inner else item for item in found]
        if not all(isinstance(name, str) and name == os.path.basename(name) for name in names):
            raise ValueError("names a file in another folder")
    except (KeyError, TypeError):
        raise DataError(f"{path}: has no list {key!r}. Was it written by save_to_disk?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {reason(error)}.") from None
    return names


SPEC = DatasetSpec(
    NAME,
    "Your own images: a folder written by save_to_disk of Hugging Face's `datasets`.",
    load,
    find,
    own_images=True,
)
