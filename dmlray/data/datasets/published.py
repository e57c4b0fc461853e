"""Recognise the folders of published benchmarks, and compare them with what was published."""

from collections.abc import Iterator
from pathlib import Path

from dmlray.data.datasets.spec import Benchmark, specs

PARENTS = (".", "data", "Datasets")  # where the authors' code looks, seen from its own folder


def benchmarks() -> list[Benchmark]:
    """Every data set that was published with counts of classes and images."""
    return [spec.benchmark for spec in specs().values() if spec.benchmark]


def foreign(benchmark: Benchmark, folder: Path) -> Benchmark | None:
    """Tell which other benchmark lies in `folder`."""
    others = (other for other in benchmarks() if other is not benchmark)
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
    held = [other.title for other in benchmarks() if next(candidates(other, root)) != root]
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
