"""Finished toy runs of every kind that has a model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.task import RetrievalTask
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import joined, member_of
from dmlray.results.merge_runs import merge
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))


def silent(title: str) -> Callable[[int, int], None]:
    return lambda done, total: None


def experiment(method: str, images: Path, *words: str) -> Experiment:
    overrides = [*toy_words(images, 1), *words]
    return read_experiment(Path(f"experiments/{method}_demo.yaml"), overrides).experiment


def train(folder: Path, plan: Experiment) -> None:
    run_training(plan, RunFolder(folder), lambda epoch: None, HERE, with_zero_shot=False)


def train_ensemble(path: Path, plan: Ensemble) -> None:
    """As the actors and the merging actor do, in this process."""
    folder = RunFolder(path)
    plan.write(folder.plan("ensemble"))
    for index in range(plan.size):
        train(folder.member(index).path, plan.member(index))
    names = ["recall_at_1", "map_at_r"]
    members = [member_of(plan, folder, index) for index in range(plan.size)]
    labels = torch.arange(6).repeat_interleave(8)
    parts = [member.embeddings() for member in members]
    curve = prefix_scores(parts, RetrievalTask(labels), names)
    replace(joined(members, curve[-1], []), curve=curve).write(folder.scores)


def merge_runs(path: Path, plan: Merge) -> None:
    folder = RunFolder(path)
    scores = merge(plan, folder, HERE, silent)
    plan.write(folder.plan("merge"))
    scores.write(folder.scores)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a`, `b`: trainings; `three`: an ensemble; `pca`, `greedy`: merges; `images`: of all."""
    root = tmp_path_factory.mktemp("inference")
    images = draw_images(root / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        held = ("protocol.selection=validation", "protocol.folds=3")
        # To 30 pixels, for which Pillow and torch resize 32 to other values.
        small = ("data.transform.eval_resize=30", "data.transform.size=30")
        plain = experiment("proxy_anchor", images, *held, *small, "method.dim=8")
        train(root / "a", plain)
        by_pillow = (*small, "data.transform.resize=30", "method.meta_classes=3")
        train(root / "b", experiment("dreml", images, *held, *by_pillow))
        train_ensemble(root / "three", Ensemble(plain, 3, "seed"))
        both = (root / "a", root / "b", root / "three")
        merge_runs(root / "pca", Merge(both, (1.0, 2.0, 0.5), pca=3, whiten=True))
        merge_runs(root / "greedy", Merge(both, greedy=True))
    return root
