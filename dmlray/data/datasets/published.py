"""Recognise the folders of published benchmarks, and compare their counts."""

from collections.abc import Iterator
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.data.datasets.spec import Benchmark, specs

PARENTS = (".", "data", "Datasets")  # folders of the authors' code, relative to it


def benchmarks() -> list[Benchmark]:
    """All data sets with published counts of classes and images."""
    return [spec.benchmark for spec in specs().values() if spec.benchmark]


def foreign(benchmark: Benchmark, folder: Path) -> Benchmark | None:
    """Return another benchmark recognised in `folder`, if any."""
    others = (other for other in benchmarks() if other is not benchmark)
    return next((other for other in others if _marked(other, folder)), None)


def _marked(benchmark: Benchmark, folder: Path) -> bool:
    return any(next(folder.glob(mark), None) for mark in benchmark.marks)


def candidates(benchmark: Benchmark, root: Path) -> Iterator[Path]:
    """Yield folders named like the benchmark, then the root itself.

    Some tools unpack an archive into a folder of its name, so the name may occur twice.
    """
    for parent in PARENTS:
        for name in benchmark.folders:
            folder = root / parent / name
            yield from (path for path in (folder, folder / name) if path.is_dir())
    yield root


def what_is_wrong(benchmark: Benchmark, root: Path) -> str:
    """Describe in one sentence why `root` holds no layout of the benchmark."""
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
    """Remark on `classes` and `images`, as (train, test), that differ from the published counts."""
    count, official = sum(classes), sum(benchmark.classes)
    if count < official:
        split = "so the first half trains" if halved else f"of which {classes[0]} train"
        return (f"incomplete: {count} of {official} classes, {split}",)
    for what, counts, expected in (
        ("classes", classes, benchmark.classes),
        ("images", images, benchmark.images),
    ):
        if counts != expected:
            published = f"{benchmark.title} has {expected[0]} / {expected[1]}"
            return (f"{counts[0]} / {counts[1]} {what} of train / test where {published}",)
    return ()


def role_shortcomings(benchmark: Benchmark, dataset: Dataset) -> tuple[str, ...]:
    """Remark on numbers of queries and gallery images that differ from the published ones."""
    found = retrieval_counts(dataset)
    if found == benchmark.retrieval or found is None or benchmark.retrieval is None:
        return ()
    published = f"{benchmark.title} has {benchmark.retrieval[0]} / {benchmark.retrieval[1]}"
    return (f"{found[0]} / {found[1]} queries / gallery images where {published}",)


def retrieval_counts(dataset: Dataset) -> tuple[int, int] | None:
    """Count the test images that are (queries, gallery); None without roles."""
    if dataset.roles is None:
        return None
    tested = dataset.labels >= dataset.train_classes
    return int((dataset.roles.queries & tested).sum()), int((dataset.roles.gallery & tested).sum())
