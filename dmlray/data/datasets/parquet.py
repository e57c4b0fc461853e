"""Your own images: a parquet file of paths, or of the images themselves."""

import os
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import arrow_table, image_table, train_test
from dmlray.data.datasets.arrow_table import ArrowFile
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.data.datasets.table_columns import ImageTable
from dmlray.data.datasets.train_test import Keep, Split
from dmlray.errors import ConfigError, DataError

NAME, SUFFIX = "parquet", ".parquet"


def load(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> Dataset:
    """List the images of the parquet file `root`, or of the folder `root` of its parts.

    Raises:
        ConfigError: If there is no root.
        DataError: As `arrow_table.read` and `image_table.load` do.
    """
    return image_table.load(NAME, _read(root), split, keep)


def find(root: Path | None, split: Split = "classes") -> DatasetListing:
    """List the images of a parquet file; `problems` has what forbids their use."""
    return image_table.find(NAME, _read(root), split)


def parts(folder: Path) -> list[Path]:
    """Parquet files of a folder, in the order of their names."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.suffix.lower() == SUFFIX)


def _read(root: Path | None) -> ImageTable:
    if root is None:
        problem = (
            "data set 'parquet' needs a parquet file, or a folder of its parts. Set data.root."
        )
        raise ConfigError("data.root", [problem])
    source = Path(os.path.expanduser(root)).absolute()
    files = parts(source) if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source}: no parquet file in this folder. Expected at least one.")
    folder = source if source.is_dir() else source.parent
    return arrow_table.read(NAME, source, folder, [ArrowFile(file) for file in files])


SPEC = DatasetSpec(
    NAME,
    "Your own images: a parquet file (or a folder of its parts) of paths or of images.",
    load,
    find,
    own_images=True,
)
