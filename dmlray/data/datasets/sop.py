"""Stanford Online Products: 22,634 products, split by the official lists; in any layout."""

from pathlib import Path

from dmlray.data.archives.download import Source
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import layouts
from dmlray.data.datasets.dataset_listing import DatasetListing, complete
from dmlray.data.datasets.layouts import ImageGroup
from dmlray.data.datasets.spec import Benchmark, DatasetSpec
from dmlray.errors import DataError

TRAIN, TEST = "Ebay_train.txt", "Ebay_test.txt"
HEADER = ["image_id", "class_id", "super_class_id", "path"]
ORDER = "class ids of the lists"
SOP = Benchmark(
    "sop",
    "Stanford Online Products",
    ("Stanford_Online_Products", "Standford_Online_Products", "online_products", "sop"),
    ("Ebay_train.txt", "Ebay_test.txt", "Info_Files", "*_final", "images/*_final"),
    "Ebay_train.txt with Ebay_test.txt, there or in Info_Files/",
    (11318, 11316),
    (59551, 60502),
)


def load(root: Path | None) -> Dataset:
    """List the data set `sop`."""
    return complete(find(root))


def find(root: Path | None) -> DatasetListing:
    """List the data set `sop` by its layout; files may be missing."""
    return layouts.search(SOP, root, (_official, _by_kind))


def _official(folder: Path) -> DatasetListing | None:
    """Read the official lists, at the top or in Info_Files/."""
    for lists in (folder, folder / "Info_Files"):
        present = [name for name in (TRAIN, TEST) if (lists / name).is_file()]
        if len(present) == 1:
            (missing,) = {TRAIN, TEST} - set(present)
            raise DataError(f"{lists}: found {present[0]} but {missing} is missing.")
        if present:
            train, test = (_read(lists / name) for name in (TRAIN, TEST))
            return _arrange("official lists", folder, _disjoint(lists, train, test))
    return None


def _by_kind(folder: Path) -> DatasetListing | None:
    """Read Info_Files/{bicycle,...}.txt: the same columns; the class id decides the split.

    Departs: DCML names these lists in its README, but its code reads the official ones.
    """
    rows = [
        row
        for path in sorted((folder / "Info_Files").glob("*.txt"))
        if not path.name.startswith((".", "Ebay_"))
        for row in _read(path)
    ]
    sides = [(number, number <= SOP.classes[0], file) for number, file in dict.fromkeys(rows)]
    return _arrange("lists by kind", folder, sides) if sides else None


def _arrange(layout: str, folder: Path, rows: list[tuple[int, bool, str]]) -> DatasetListing:
    images = folder / "images"
    trains = {number: side for number, side, _ in rows}
    groups = [
        ImageGroup(str(number), files, trains[number])
        for number, files in layouts.by_id([(number, file) for number, _, file in rows]).items()
    ]
    return layouts.arrange(SOP, layout, ORDER, images if images.is_dir() else folder, groups)


def _disjoint(
    folder: Path, train: list[tuple[int, str]], test: list[tuple[int, str]]
) -> list[tuple[int, bool, str]]:
    shared = {number for number, _ in train} & {number for number, _ in test}
    if shared:
        raise DataError(
            f"{folder}: {TRAIN} and {TEST} share {len(shared)} classes, first {min(shared)}."
            " Expected test classes that no training image shows."
        )
    return [
        (number, side, file)
        for side, rows in ((True, train), (False, test))
        for number, file in rows
    ]


def _read(path: Path) -> list[tuple[int, str]]:
    """Read rows of (class id, image)."""
    return [
        (layouts.whole(path, line, fields[1]), fields[3])
        for line, fields in layouts.read_rows(path, len(HEADER))
        if fields != HEADER
    ]


SPEC = DatasetSpec(
    "sop",
    "Stanford Online Products: 22,634 products, split by the official lists; in any layout.",
    load,
    find,
    benchmark=SOP,
    source=Source(
        "sop",
        "Stanford_Online_Products.zip",
        "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
        3_083_860_082,
        "sha256:b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
    ),
)
