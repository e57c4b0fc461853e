"""In-Shop Clothes Retrieval: 7,982 items, split into training, queries and gallery by its list."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import layouts
from dmlray.data.datasets.dataset_listing import DatasetListing, complete
from dmlray.data.datasets.layouts import ImageGroup
from dmlray.data.datasets.published import role_shortcomings
from dmlray.data.datasets.spec import Benchmark, DatasetSpec
from dmlray.data.roles import BOTH, GALLERY, QUERY, roles_of
from dmlray.errors import DataError

LIST = "list_eval_partition.txt"
LISTS = tuple(f"{folder}{LIST}" for folder in ("Eval/", "", "Anno/"))
HEADER = ["image_name", "item_id", "evaluation_status"]
TRAIN = "train"
IMAGES = ("Img", ".", "img", "Img/img", "..")  # folders where the listed paths may begin
ORDER = "numbers of the items"
INSHOP = Benchmark(
    "inshop",
    "In-Shop Clothes Retrieval",
    (
        "In-shop Clothes Retrieval Benchmark",
        "In-shop_Clothes_Retrieval_Benchmark",
        "Inshop_Clothes",
        "DeepFashion/In-shop Clothes Retrieval Benchmark",
        "inshop",
        "Inshop",
        "In-shop",
    ),
    LISTS,
    f"{LIST}, there, in Eval/ or in Anno/, beside img/ or Img/img/",
    (3997, 3985),
    (25882, 26830),
    (14218, 12612),
)


class Row(NamedTuple):
    """One image; `item` is id_00000001 and the like, `status` train, query or gallery."""

    file: str
    item: str
    status: str


def load(root: Path | None) -> Dataset:
    """List the data set `inshop`."""
    return complete(find(root))


def find(root: Path | None) -> DatasetListing:
    """List the data set `inshop` by its layout; files may be missing."""
    return layouts.search(INSHOP, root, (_official,))


def _official(folder: Path) -> DatasetListing | None:
    path = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if path is None:
        return None
    rows = list(_read(path))
    numbers, trains = _items(path, rows)
    files: dict[str, list[str]] = {item: [] for item in sorted(numbers, key=lambda i: numbers[i])}
    for row in rows:
        files[row.item].append(row.file)
    groups = [ImageGroup(item, images, trains[item]) for item, images in files.items()]
    listing = layouts.arrange(INSHOP, "official list", ORDER, _images(folder, rows), groups)
    return replace(listing, dataset=_with_roles(listing.dataset, rows))


def _with_roles(dataset: Dataset, rows: Sequence[Row]) -> Dataset:
    """Set the roles of the list; training images are both, in validation folds."""
    status = {row.file: row.status for row in rows}
    names = [BOTH if status[file] == TRAIN else status[file] for file in dataset.files]
    dataset = replace(dataset, roles=roles_of(names))
    return replace(dataset, remarks=dataset.remarks or role_shortcomings(INSHOP, dataset))


def _read(path: Path) -> Iterator[Row]:
    """Read the list: a count, the names of the columns, and an image a line."""
    seen: dict[str, int] = {}
    for line, fields in layouts.read_rows(path, len(HEADER), counted=True):
        if fields == HEADER:
            continue
        row = Row(*fields)
        if row.status not in (TRAIN, QUERY, GALLERY):
            allowed = f"Allowed: {TRAIN}, {QUERY}, {GALLERY}, the third column of {LIST} of In-Shop"
            raise DataError(f"{path}: line {line}: {row.status!r:.80} is not allowed. {allowed}.")
        first = seen.setdefault(row.file, line)
        if first != line:
            problem = f"{row.file} is on line {first} already"
            raise DataError(f"{path}: line {line}: {problem}. Expected each image once.")
        yield row


def _items(path: Path, rows: Sequence[Row]) -> tuple[dict[str, int], dict[str, bool]]:
    """Map each item to its number, and to whether it trains."""
    numbers: dict[str, int] = {}
    trains: dict[str, bool] = {}
    for row in rows:
        if trains.setdefault(row.item, row.status == TRAIN) != (row.status == TRAIN):
            raise DataError(
                f"{path}: item {row.item} is in training and in test."
                " Expected test classes that no training image shows."
            )
        digits = row.item.rpartition("_")[2]
        if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
            raise DataError(f"{path}: item {row.item!r:.80}. Expected names such as id_00000001.")
        numbers[row.item] = int(digits)
    return numbers, trains


def _images(folder: Path, rows: Sequence[Row]) -> Path:
    """The folder where the listed paths begin: the first that has the folder of some image."""
    tops = {"/".join(row.file.split("/")[:2]) for row in rows}  # img/MEN, img/WOMEN
    found = (
        folder / name for name in IMAGES if any((folder / name / top).is_dir() for top in tops)
    )
    return next(found, folder)


SPEC = DatasetSpec(
    "inshop",
    "In-Shop Clothes Retrieval: 7,982 items, split into training, queries and gallery by its list.",
    load,
    find,
    benchmark=INSHOP,
    no_source="In-Shop Clothes Retrieval has no public URL: its authors (DeepFashion, MMLAB) send "
    "it on request. Give img.zip and list_eval_partition.txt as `sources`",
)
