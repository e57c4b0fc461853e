"""The authors' commands run as they stand, on a small copy of the data set in their layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.learn import metrics_log
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.data.images import picture

pytestmark = pytest.mark.slow
EACH = 3  # images of a class
SMALL = ["backbone.weights=none", "budget.epochs=2", "budget.warmup_epochs=1"]
SMALL += ["data.transform.size=64"]
# DCML and IDML's warm-up draw whole batches from however few images there are.
MORE = {"dcml": ["data.batch_size=4"], "idml": ["data.batch_size=9"]}
FILES = sorted(
    path.name
    for name in ("cub", "cars", "sop", "inshop")
    for path in Path("experiments").glob(f"*_{name}*.yaml")
)


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = np.random.default_rng(seed).integers(90, 160, 2)
    picture(int(height), int(width), seed).save(path)


def cub(root: Path) -> None:
    for number in (1, 2, 3, 101, 102, 103):
        for i in range(EACH):
            folder = root / "CUB_200_2011" / "images" / f"{number:03d}.Bird"
            photo(folder / f"{i}.jpg", 10 * number + i)


def cars(root: Path) -> None:
    for place, name in enumerate(("Acura", "Audi", "BMW", "Dodge", "Fiat", "Volvo")):
        for i in range(EACH):
            photo(root / "cars196" / "images" / name / f"{i}.jpg", 10 * place + i)


def sop(root: Path) -> None:
    folder = root / "Standford_Online_Products"  # so spelt by IDML's authors
    for name, first in (("train", 1), ("test", 11319)):
        rows = ["image_id class_id super_class_id path"]
        for number in range(first, first + 3):
            for i in range(EACH):
                rows.append(f"{len(rows)} {number} 1 bicycle_final/{number}_{i}.JPG")
                photo(folder / "bicycle_final" / f"{number}_{i}.JPG", 10 * number + i)
        (folder / f"Ebay_{name}.txt").write_text("\n".join(rows))


def inshop(root: Path) -> None:
    rows = ["image_name item_id evaluation_status"]
    for number in range(1, 7):
        for i in range(EACH):
            status = "train" if number < 4 else "gallery" if i else "query"
            rows.append(f"img/MEN/id_{number:08d}/{i}.jpg id_{number:08d} {status}")
            photo(root / "Inshop_Clothes" / "Img" / rows[-1].split()[0], 10 * number + i)
    (root / "Inshop_Clothes" / "Eval").mkdir()
    (root / "Inshop_Clothes" / "Eval" / "list_eval_partition.txt").write_text("\n".join(rows))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for build in (cub, cars, sop, inshop):
        build(root)
    return root


@pytest.mark.parametrize("file", FILES)
def test_it_trains_and_scores(
    file: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(root / "cache"))
    words = [*SMALL, f"data.root={root}", *MORE.get(file.partition("_")[0], [])]
    plan = read_experiment(Path("experiments") / file, words).experiment
    folder = RunFolder(tmp_path / "run")
    run_training(plan, folder, lambda epoch: None, Runtime(torch.device("cpu")))
    losses = [epoch["loss"] for epoch in metrics_log.read(folder.metrics)]
    assert len(losses) == 2
    assert losses[0] != losses[1]
    scores = read_scores(folder.scores)
    assert scores.test_images == 3 * EACH
    assert scores.remarks[0].startswith("incomplete: 6 of ")
    assert scores.selection == plan.protocol.selection
