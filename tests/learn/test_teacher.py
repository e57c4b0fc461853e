"""A student's batches hold the teacher's vectors of their images, on one worker and on several."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.data.folds import train_subset
from dmlray.errors import DmlrayError
from dmlray.evaluation.pca import principal_rows
from dmlray.learn.class_split import fold_split, full_split, load_dataset
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.teacher import TaughtLoader, read_vectors, write_vectors
from dmlray.learn.trainer import Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import IMAGES, draw_images, toy_words

HERE = Runtime(torch.device("cpu"))
WIDTH = 5


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    words = ["protocol.folds=3", "method.dim=8", "method.teacher=/gone"]
    file = Path("experiments/distil_demo.yaml")
    return read_experiment(file, [*toy_words(images, 3), *words]).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def taught(plan: Experiment, folder: Path) -> RunFolder:
    """A run with vectors by which an image and its class can be recognised."""
    dataset = load_dataset(plan)
    labels = torch.from_numpy(train_subset(dataset).labels)
    rows = torch.nn.functional.one_hot(labels % WIDTH, WIDTH).float()
    rows[:, 0] += torch.arange(len(rows)) / len(rows)
    folder.mkdir(parents=True, exist_ok=True)
    opened = RunFolder(folder, root=folder)
    write_vectors(opened.teacher, rows, dataset, "learned from toys")
    return opened


@pytest.mark.parametrize("frozen", ["false", "true"])
def test_batches_hold_the_vectors_of_their_images(
    plan: Experiment, tmp_path: Path, frozen: str
) -> None:
    """Of a fold without the first classes, whose rows come first in the file."""
    plan = override(plan, "test", {"backbone.frozen": frozen == "true"})
    split = fold_split(plan, load_dataset(plan), 0)
    folder = taught(plan, tmp_path / "run")
    rows = read_vectors(folder.teacher, split.dataset).rows
    loader = Training(plan, split, folder.fold(0), HERE).train_batches()
    assert isinstance(loader, TaughtLoader)
    positions = [number for batch in loader._images.plan(2) for number in batch]
    targets = torch.cat([targets for _, _, targets in loader.epoch(2)])
    assert torch.equal(targets, rows[split.train.rows[positions]])
    assert split.train.rows.min() >= IMAGES


def test_workers_get_the_vectors_of_their_part(plan: Experiment, tmp_path: Path) -> None:
    split, folder = full_split(load_dataset(plan)), taught(plan, tmp_path / "run")
    alone = Training(plan, split, folder, HERE).train_batches()
    assert isinstance(alone, TaughtLoader)
    parts = [
        TaughtLoader(alone._images, alone._targets, ProcessGroup(rank, 3)).epoch(0)
        for rank in range(3)
    ]
    for (_, _, whole), *shares in zip(alone.epoch(0), *parts, strict=True):
        assert torch.equal(torch.cat([targets for _, _, targets in shares]), whole)


def test_a_student_learns_resumes_and_names_its_teacher(plan: Experiment, tmp_path: Path) -> None:
    def train(folder: RunFolder, plan: Experiment) -> list[float]:
        losses: list[float] = []
        run_training(plan, folder, lambda epoch: losses.append(epoch.metrics["loss"]), HERE)
        return losses

    folder = taught(plan, tmp_path / "run")
    losses = train(folder, plan)
    assert losses[-1] < losses[0]
    scores = evaluate(plan, folder, HERE)
    assert "learned from toys" in scores.remarks
    assert scores.embedding_size == 8

    class Stop(BaseException):
        pass

    def stop(epoch: object) -> None:
        raise Stop

    again = taught(plan, tmp_path / "again")
    with pytest.raises(Stop):
        run_training(plan, again, stop, HERE)
    assert train(again, plan) == losses


def test_folds_share_the_vectors_of_the_opened_run(plan: Experiment, tmp_path: Path) -> None:
    folder = taught(plan, tmp_path / "run").trial(3)
    epochs = list(lockstep(plan, folder, HERE))
    assert len(epochs) == 3
    assert {"loss_cosine", "loss_distance", "loss_angle"} <= epochs[0].metrics.keys()


def test_vectors_that_cannot_be_used_are_one_sentence(plan: Experiment, tmp_path: Path) -> None:
    folder = taught(plan, tmp_path / "run")
    whole = folder.teacher.read_bytes()
    dataset = load_dataset(plan)
    few = torch.ones(3, WIDTH)
    damages: list[tuple[Callable[[], object], str]] = [
        (lambda: folder.teacher.unlink(), "no such file, the teacher's vectors; resume the run"),
        (lambda: folder.teacher.write_bytes(whole[:-9]), "is damaged; delete it and resume"),
        (lambda: folder.teacher.write_bytes(b""), "is empty; delete it and resume"),
        (lambda: torch.save({"rows": few}, folder.teacher), "holds no vectors of these"),
        (lambda: write_vectors(folder.teacher, few, dataset, ""), "holds no vectors of these"),
    ]
    for damage, complaint in damages:
        damage()
        with pytest.raises(DmlrayError, match=complaint) as caught:
            run_training(plan, folder, lambda epoch: None, HERE)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 2


@pytest.mark.parametrize("shape", [(20, 6), (6, 20), (9, 9)])
def test_principal_rows_keep_cosines_and_have_the_largest_first(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=generator) * torch.linspace(3, 0.1, shape[1])
    found = principal_rows(rows).double()
    rows = rows.double()
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=1e-4)
    # The best approximation of rank 2 (Eckart and Young)
    _, values, _ = torch.linalg.svd(rows)
    lost = (found @ found.T - found[:, :2] @ found[:, :2].T).norm()
    torch.testing.assert_close(lost, values[2:].pow(4).sum().sqrt(), rtol=1e-4, atol=1e-4)


def test_directions_that_are_nothing_are_left_out() -> None:
    rows = torch.randn(10, 2, generator=torch.Generator().manual_seed(0)) @ torch.ones(2, 6).cumsum(
        1
    )
    assert principal_rows(rows).shape == (10, 1)
