"""What it costs to use a model: embedding files, searching vectors, exporting.

    python benchmarks/embed.py [FOLDER OF PHOTOS]

Without a folder it draws its own photos. Rates are of CPU seconds of one thread. Ends with status 1
if vectors or neighbours are wrong, never for being slow.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from _race import conclude, race, table
from PIL import Image
from torchvision import transforms

from dmlray.data.batches.augment import Transform
from dmlray.inference import vector_files
from dmlray.inference.embed_files import embed
from dmlray.inference.image_list import list_images
from dmlray.inference.model import Model, bare_backbone
from dmlray.inference.model_files import write_model
from dmlray.inference.onnx_export import write_onnx
from dmlray.inference.search import nearest_vectors
from dmlray.inference.vector_files import About

PHOTOS, SIDE, BATCH = 300, 160, 64
FEW, MANY = 2_000, 20_000  # images, between which memory must not grow
VECTORS, WIDTH, SHARD, QUERIES, K = 1_000_000, 128, 10_000, 100, 10
Ratios = dict[str, float]


def main(photos: Path | None) -> int:
    """Print a table and the ratios; 1 if anything is wrong."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = photos or _draw(folder / "photos")
        model = bare_backbone("efficientnet_lite0", transform=Transform(size=128, eval_resize=144))
        ratios = _embedding(model, images, folder, wrong) | _memory(images, folder)
        ratios |= _start(model, images, folder) | _export(model, images, folder)
        ratios |= _search(folder / "million", wrong)
    return conclude(ratios, wrong)


def _draw(folder: Path) -> Path:
    """Photos of smooth colours and some grain."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE * 4 // 3, SIDE), Image.Resampling.BICUBIC))
        grainy = smooth + rng.normal(0, 7, (SIDE, SIDE * 4 // 3, 1))
        Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.jpg")
    return folder


def _embedding(model: Model, images: Path, folder: Path, wrong: list[str]) -> Ratios:
    """Images per CPU second of `dmlray embed` over those of a plain loop without any file."""
    files = list_images([images])["path"].to_pylist()[: 2 * PHOTOS]
    numbers = iter(range(100))

    def ours() -> None:
        embed(model, [Path(file) for file in files], folder / f"v{next(numbers)}", device="cpu")

    times = race({"dmlray embed": ours, "plain loop": partial(_plain, model, files)})
    table(times)
    rows = np.concatenate(list(_plain(model, files)))
    close = np.einsum("nd,nd->n", rows, model.embed(files, device="cpu"))
    if close.min() < 0.99:  # Pillow's and torch's resizing differ by a level
        wrong.append(f"embed: a vector has a cosine of {close.min():.3f} with the plain loop's")
    return {"embed_over_loop": times["plain loop"].median / times["dmlray embed"].median}


def _plain(model: Model, files: list[str]) -> list[np.ndarray]:
    """Pillow, torchvision, forward: what one writes by hand."""
    branch = model.config.branches[0]
    preprocess = transforms.Compose(
        [
            transforms.Resize(branch.crop.short_side),
            transforms.CenterCrop(branch.crop.size),
            transforms.ToTensor(),
            transforms.Normalize(branch.mean, branch.std),
        ]
    )
    trunk: Any = model.network.branches[0].trunk
    found = []
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            opened = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
            batch = torch.stack([preprocess(image) for image in opened])
            batch = batch.contiguous(memory_format=torch.channels_last)
            found.append(F.normalize(trunk(batch)).numpy())
    return found


def _memory(images: Path, folder: Path) -> Ratios:
    """Growth of this process from a few images to many, MB: by a network that hardly computes."""
    model = bare_backbone("timm/test_resnet", "none", transform=Transform(size=32, eval_resize=32))
    files = list_images([images])["path"].to_pylist()
    small = folder / "small"
    small.mkdir()
    for number, file in enumerate(files[:100]):
        Image.open(file).resize((32, 32)).save(small / f"{number}.png")
    names = [str(path) for path in sorted(small.iterdir())]
    used = []
    for count in (FEW, MANY):
        listed = pa.table({"path": [names[number % len(names)] for number in range(count)]})
        embed(model, listed, folder / f"of{count}", device="cpu")
        used.append(_resident())
    return {"embed_memory_growth_mb": (used[1] - used[0]) / 1e6}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _start(model: Model, images: Path, folder: Path) -> Ratios:
    """Seconds of one `dmlray query` by the clock, with all that it imports."""
    (folder / "model").mkdir()
    write_model(model, folder / "model")
    embed(model, [images], folder / "searched", device="cpu")
    one = next(images.rglob("*.jpg"))
    words = ["query", "model", "searched", str(one), "-k", "1"]
    command = [sys.executable, "-m", "dmlray", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
        taken.append(time.perf_counter() - begun)
    return {"query_start_seconds": min(taken)}


def _export(model: Model, images: Path, folder: Path) -> Ratios:
    """Seconds of the ONNX graph and its comparison with torch, by the clock."""
    begun = time.perf_counter()
    write_onnx(model, folder / "embed.onnx", list_images([images])["path"].to_pylist()[:32])
    return {"export_onnx_seconds": time.perf_counter() - begun}


def _search(folder: Path, wrong: list[str]) -> Ratios:
    """CPU seconds of faiss over ours, for its vectors lie in memory and ours in files."""
    about = About("0" * 16, WIDTH, "float32", "0" * 64, VECTORS, SHARD, 1, True, VECTORS)
    index, generator = faiss.IndexFlatIP(WIDTH), torch.Generator().manual_seed(0)
    (folder / vector_files.SHARDS).mkdir(parents=True)
    for start, rows in _million(about, generator):
        flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), WIDTH)
        paths = [f"/{number}" for number in range(start, start + len(rows))]
        shard = pa.table({"path": paths, "vector": flat})
        vector_files.write_shard(vector_files.shard_path(folder, start), shard, [])
        index.add(rows)
    queries = F.normalize(torch.randn(QUERIES, WIDTH, generator=generator))
    ours = nearest_vectors(folder, about, queries, K).indices.numpy()
    if (ours != index.search(queries.numpy(), K)[1]).mean() > 1e-3:  # near ties may change places
        wrong.append("query: neighbours differ from those of faiss")
    contestants = {
        "dmlray query": lambda: nearest_vectors(folder, about, queries, K),
        "faiss IndexFlatIP": lambda: index.search(queries.numpy(), K),
    }
    times = race(contestants)
    table(times)
    return {"query_over_faiss": times["faiss IndexFlatIP"].median / times["dmlray query"].median}


def _million(about: About, generator: torch.Generator) -> Iterator[tuple[int, np.ndarray]]:
    for start, end in about.parts():
        yield start, F.normalize(torch.randn(end - start, WIDTH, generator=generator)).numpy()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
