"""The benchmarks of the field: what was published, and how their folders are known at sight."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PARENTS = (".", "data", "Datasets")  # where the authors' code looks, seen from its own folder


@dataclass(frozen=True)
class Benchmark:
    """A data set of the field, as it was published; pairs are (train, test).

    `folders` are the names that its folder goes by; `marks` are patterns of what lies in it and
    in no other benchmark's; `wanted` says in words what would be found.

    Source: Wah et al., CNS-TR-2011-001; Krause et al., 3dRR 2013; Song et al., CVPR 2016,
    arXiv 1511.06452, whose split by classes all methods take for all three.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    wanted: str
    classes: tuple[int, int]
    images: tuple[int, int]


CUB = Benchmark(
    "cub",
    "CUB-200-2011",
    ("CUB_200_2011", "cub200", "cub"),
    ("image_class_labels.txt", *(f"{up}[0-9][0-9][0-9].*" for up in ("", "images/", "train/"))),
    "images.txt with image_class_labels.txt, or images/NNN.Name/, or train/ and test/",
    (100, 100),
    (5864, 5924),
)
CARS = Benchmark(
    "cars",
    "Cars196",
    ("cars196", "cars", "car", "stanford_cars", "stanford-cars-dataset", "car_data"),
    ("cars_annos.mat", "car_ims", "cars_train", "cars_test", "devkit/cars_meta.mat"),
    "cars_annos.mat with car_ims/, or cars_train/ and cars_test/ with their annotations, or"
    " images/CLASS NAME/, or train/ and test/",
    (98, 98),
    (8054, 8131),
)
SOP = Benchmark(
    "sop",
    "Stanford Online Products",
    ("Stanford_Online_Products", "Standford_Online_Products", "online_products", "sop"),
    ("Ebay_train.txt", "Ebay_test.txt", "Info_Files", "*_final", "images/*_final"),
    "Ebay_train.txt with Ebay_test.txt, there or in Info_Files/",
    (11318, 11316),
    (59551, 60502),
)
BENCHMARKS = (CUB, CARS, SOP)


def foreign(benchmark: Benchmark, folder: Path) -> Benchmark | None:
    """Tell which other benchmark lies in `folder`."""
    others = (other for other in BENCHMARKS if other is not benchmark)
    return next((other for other in others if _marked(other, folder)), None)


def _marked(benchmark: Benchmark, folder: Path) -> bool:
    return any(next(folder.glob(mark), None) for mark in benchmark.marks)


def candidates(benchmark: Benchmark, root: Path) -> Iterator[Path]:
    """Folders that go by the benchmark's name, then the root itself: anything may be in that.

    Some tools unpack an archive into a folder of its name, so the name may come twice.
    """
    for parent in PARENTS:
        for name in benchmark.folders:
            folder = root / parent / name
            yield from (path for path in (folder, folder / name) if path.is_dir())
    yield root


def what_is_wrong(benchmark: Benchmark, root: Path) -> str:
    """Say why `root` holds no layout of the benchmark: one sentence on what comes nearest."""
    if not root.is_dir():
        return f"{root}: no such folder. Expected {benchmark.title} in it."
    if not any(root.iterdir()):
        return f"{root}: the folder is empty. Expected {benchmark.title} in it."
    for folder in candidates(benchmark, root):
        if other := foreign(benchmark, folder):
            return f"{folder}: holds {other.title}, not {benchmark.title}."
    nearest = next(candidates(benchmark, root))
    if nearest != root:
        return f"{root}: found {nearest.relative_to(root)} but not in it {benchmark.wanted}."
    held = [other.title for other in BENCHMARKS if next(candidates(other, root)) != root]
    seen = f"found {' and '.join(held)} but not" if held else "holds no layout of"
    return f"{root}: {seen} {benchmark.title}. Expected {benchmark.wanted}."


def shortcomings(
    benchmark: Benchmark, classes: tuple[int, int], images: tuple[int, int], halved: bool
) -> tuple[str, ...]:
    """Say what `classes` and `images` found, as (train, test), lack of what was published."""
    count, official = sum(classes), sum(benchmark.classes)
    if count < official:
        split = "so the first half trains" if halved else f"of which {classes[0]} train"
        return (f"incomplete: {count} of {official} classes, {split}",)
    for what, has, wanted in (
        ("classes", classes, benchmark.classes),
        ("images", images, benchmark.images),
    ):
        if has != wanted:
            published = f"{benchmark.title} has {wanted[0]} / {wanted[1]}"
            return (f"{has[0]} / {has[1]} {what} of train / test where {published}",)
    return ()
