"""Images per second and core, and memory, against the authors' way: Pillow and torchvision.

    python benchmarks/data.py [FOLDER OF PHOTOS]

Without a folder it draws its own photos. Rates are of CPU seconds of one thread; the contestants
take turns and the median counts. Ends with status 1 if pixels are wrong, never for being slow.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from _race import conclude
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import functional as vision

from dmlray.data.batches.augment import Transform, crop_train, draw_boxes, normalise
from dmlray.data.batches.loader import BatchLoader, Delivery
from dmlray.data.batches.samplers import Sampling
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.verify import verify_dataset
from dmlray.data.folds import train_subset
from dmlray.input_statistics import InputStatistics

PHOTOS, HEIGHT, WIDTH, QUALITY = 100, 375, 500, 90
BATCH, ROUNDS = 50, 3
BUILT = 3000  # images of the cache whose building is timed: enough to forget how it starts
VERIFIED = 9000  # the same where nothing is resized
LOADERS, LOADER_BATCH = 8, 16  # a batch of float32 pixels takes memory of its own
STATISTICS = InputStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DREML = Transform(resize=281, crop="random", size=256)
RESIZED_CROP = Transform()
NORMALISED = [transforms.ToTensor(), transforms.Normalize(STATISTICS.mean, STATISTICS.std)]
Ratios = dict[str, float]
TORCH_ALONE = "import torch, torchvision; print('ready', flush=True); input()"


def main(photos: Path | None) -> int:
    """Print a table and the ratios; 1 if any pixel is wrong."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DMLRAY_CACHE"] = f"{folder}/cache"
        dataset = _dataset(photos or _draw(Path(folder, "photos")))
        caches = {side: open_cache(dataset, side) for side in (None, DREML.resize)}
        wrong = [
            f"{name}: pixels differ from Pillow's by more than one level"
            for name, transform in (("DREML", DREML), ("RandomResizedCrop", RESIZED_CROP))
            if not _equals_pillow(dataset, caches[transform.resize], transform)
        ]
        ratios = _speeds(dataset, caches) | _building(dataset) | _memory(dataset)
    return conclude(ratios, wrong)


def _draw(folder: Path) -> Path:
    """Photos of smooth colours and some grain: about as many bytes each as a real one."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        grainy = smooth + rng.normal(0, 7, (HEIGHT, WIDTH, 1))
        pixels = grainy.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=QUALITY)
    return folder


def _dataset(folder: Path, copies: int = 1) -> Dataset:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    files = tuple(str(path.relative_to(folder)) for path in found[:PHOTOS]) * copies
    if not files:
        sys.exit(f"{folder}: no JPEG files")
    return Dataset("photos", folder, files, np.zeros(len(files), np.int64), ("photo",), 1)


def _equals_pillow(dataset: Dataset, cache: Cache, transform: Transform) -> bool:
    """Cut the same boxes out of the originals, and compare."""
    still = transform.model_copy(update={"flip": 0.0})
    rows = np.arange(len(dataset))
    heights, widths = cache.sizes(rows).T
    drawn = draw_boxes(heights, widths, still, np.random.default_rng(1)).tolist()
    found = crop_train(cache, rows, still, np.random.default_rng(1))
    side = [transform.size, transform.size]
    for pixels, file, box in zip(found, dataset.files, drawn, strict=True):
        image = Image.open(dataset.root / file).convert("RGB")
        image = vision.resize(image, transform.resize) if transform.resize else image
        wanted = vision.pil_to_tensor(vision.resized_crop(image, *box, side))
        if (pixels.int() - wanted.int()).abs().max() > 1:
            return False
    return True


def _authors(dataset: Dataset, crop: list[Callable[..., object]]) -> "DataLoader[Tensor]":
    """Read and cut each image from its file each time, as all five repositories do."""
    transform = transforms.Compose([*crop, transforms.RandomHorizontalFlip(), *NORMALISED])

    def collate(paths: list[Path]) -> Tensor:
        return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])

    paths = [dataset.root / file for file in dataset.files]
    return DataLoader(paths, BATCH, collate_fn=collate)  # type: ignore[arg-type]  # takes any list


def _speeds(dataset: Dataset, caches: dict[int | None, Cache]) -> Ratios:
    dreml = _authors(dataset, [transforms.Resize(281), transforms.RandomCrop(256)])
    resized_crop = _authors(dataset, [transforms.RandomResizedCrop(224)])
    rates = _race(
        {
            "authors: DREML, float32": lambda: list(dreml),
            "dmlray: DREML, float32": lambda: _ours(caches[DREML.resize], DREML, True),
            "dmlray: DREML, uint8": lambda: _ours(caches[DREML.resize], DREML, False),
            "authors: RandomResizedCrop, float32": lambda: list(resized_crop),
            "dmlray: RandomResizedCrop, float32": lambda: _ours(caches[None], RESIZED_CROP, True),
            "dmlray: RandomResizedCrop, uint8": lambda: _ours(caches[None], RESIZED_CROP, False),
        },
        len(dataset),
    )
    authors, same, uint8, crop_authors, crop_same, crop_uint8 = rates.values()
    return {
        "dreml_float32": same / authors,
        "dreml_uint8": uint8 / authors,
        "random_resized_crop_float32": crop_same / crop_authors,
        "random_resized_crop_uint8": crop_uint8 / crop_authors,
    }


def _ours(cache: Cache, transform: Transform, float32: bool) -> None:
    rng = np.random.default_rng(0)
    for rows in np.split(np.arange(len(cache)), range(BATCH, len(cache), BATCH)):
        images = crop_train(cache, rows, transform, rng)
        if float32:
            normalise(images, STATISTICS)


def _race(contestants: dict[str, Callable[[], object]], images: int) -> dict[str, float]:
    """Images per CPU second of each: the median of rounds in which all take turns."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            rates[name].append(images / (time.process_time() - start))
    medians = {name: median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:40} {rate:8.0f} images/s/core")
    return medians


def _building(dataset: Dataset) -> Ratios:
    """Compare the building and the verifying of images with Pillow alone, each on all cores."""
    built, verified = (_dataset(dataset.root, -(-n // len(dataset))) for n in (BUILT, VERIFIED))
    resize = f"decode, Resize({DREML.resize})"
    build = _against_pillow(resize, built, _resize, lambda data: open_cache(data, DREML.resize))
    verify = _against_pillow("decode", verified, _decode, verify_dataset)
    return {"cache_build": build, "verify_decode": verify}


def _against_pillow(
    what: str,
    dataset: Dataset,
    pillow: Callable[[Path], None],
    ours: Callable[[Dataset], object],
) -> float:
    names, runs = ("Pillow alone", "dmlray"), (partial(_map, pillow), ours)
    rounds = [[_rate(run, replace(dataset)) for run in runs] for _ in _new_caches()]
    for name, rates in zip(names, zip(*rounds, strict=True), strict=True):
        rate, clock = (median(column) for column in zip(*rates, strict=True))
        print(f"{f'{name}: {what}':40} {rate:8.0f} images/s/core, {clock:.0f} by the clock")
    return median(ours[0] / pillow[0] for pillow, ours in rounds)


def _new_caches() -> Iterator[None]:
    """Give each round a cache folder of its own, so that images are decoded again."""
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DMLRAY_CACHE"] = folder
            yield


def _rate(run: Callable[[Dataset], object], dataset: Dataset) -> tuple[float, float]:
    """Images per CPU second of all processes together, and per second by the clock."""
    clock, used = time.perf_counter(), sum(os.times()[:4])  # children that ended count
    run(dataset)
    used, clock = sum(os.times()[:4]) - used, time.perf_counter() - clock
    return len(dataset) / used, len(dataset) / clock


def _map(function: Callable[[Path], None], dataset: Dataset) -> None:
    paths = [dataset.root / file for file in dataset.files]
    with get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        pool.map(function, paths, chunksize=50)
        pool.close()
        pool.join()  # so that its CPU seconds are counted


def _decode(path: Path) -> None:
    np.asarray(Image.open(path).convert("RGB"))


def _resize(path: Path) -> None:
    np.asarray(vision.resize(Image.open(path).convert("RGB"), DREML.resize))


def _memory(dataset: Dataset) -> Ratios:
    """Start loaders over one cache and see what each holds for itself alone, beyond torch."""
    cache = open_cache(dataset, None)
    total = (cache.folder / "images.bin").stat().st_size / 1e6
    command = [__file__, "--loader", str(dataset.root)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(_started(*words))
            for words in (("-c", TORCH_ALONE), *[command] * LOADERS)
        ]
        for process in started:
            _wait(process)
        base, *used = map(_unique_megabytes, started)
        most = max(used) - base
    print(f"{'torch alone, its own memory':40} {base:8.0f} MB")
    print(f"{f'{LOADERS} loaders of {total:.0f} MB, each beyond torch':40} {most:8.0f} MB")
    return {"loader_memory_over_60_MB": most / 60}


@contextmanager
def _started(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe) as process:
        yield process
        process.communicate(b"\n")


def _wait(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    if not process.stdout.readline():
        sys.exit(f"a loader ended with status {process.wait()}")


def _unique_megabytes(process: "subprocess.Popen[bytes]") -> float:
    """Unique set size: what would be free if the process ended."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1e3


def _load(root: Path) -> None:
    """Be one loader: an epoch, then wait."""
    torch.set_num_threads(1)
    dataset = _dataset(root)
    loader = BatchLoader(
        open_cache(dataset, None), train_subset(dataset), RESIZED_CROP,
        Sampling(LOADER_BATCH), STATISTICS, Delivery(torch.device("cpu")),
    )  # fmt: skip
    for epoch in range(2):
        for _ in loader.epoch(epoch):
            pass
    print("ready", flush=True)
    input()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--loader"]:
        _load(Path(sys.argv[2]))
    else:
        sys.exit(main(Path(sys.argv[1]).resolve() if sys.argv[1:] else None))
