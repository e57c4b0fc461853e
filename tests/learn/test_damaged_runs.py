"""A damaged or changed file of a run leads to one sentence or to the right scores."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from rich.console import Console

from dmlray.cluster.ensemble.recovery import recover_members
from dmlray.errors import ConfigError, DmlrayError
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.metrics import standard_metrics
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.results.averages import score_members
from dmlray.results.finished_runs import joined, member_of
from dmlray.results.finished_runs import test_task as task_of
from dmlray.results.merge_runs import merge
from tests.learn.checkpoint_mutants import CHECKPOINTS, OPTIMIZERS
from tests.learn.run_mutants import (
    ARRAYS,
    FILES,
    GENERIC,
    SOUND_BUT_OTHERS,
    SWAPS,
    Mutant,
    array,
    array_mutants,
    linked,
    scores_mutants,
    set_to,
    swapped,
)
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))
Reader = Callable[[Path], dict[str, float]]
Expected = dict[Reader, dict[str, float]]
MUTANTS = [
    *(Mutant(file, kind, change) for file in FILES for kind, change in GENERIC.items()),
    *scores_mutants(),
    *array_mutants(),
    *(Mutant("one/checkpoints/best.pt", kind, change) for kind, change in CHECKPOINTS.items()),
    *(
        Mutant("one/checkpoints/last.pt", kind, change)
        for kind, change in {**CHECKPOINTS, **OPTIMIZERS}.items()
    ),
    *(Mutant(file, f"swapped with {other}", swapped(other)) for file, other in SWAPS),
    Mutant("ens/members/000", "the ensemble itself", linked("../../ens")),
    Mutant("ens/members/000", "another run", linked("../../one")),
    Mutant("ens/scores.json", "a member less", set_to("curve", [])),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A training `one` and an ensemble `ens` of two members, all finished."""
    root = tmp_path_factory.mktemp("runs")
    words = toy_words(draw_images(root / "images", classes=6, images=6), 2)
    held_out = [*words, "protocol.selection=validation", "protocol.folds=3", "method.dim=8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        run_training(
            experiment("proxy_anchor", held_out), RunFolder(root / "one"), lambda epoch: None, HERE
        )
        plan = Ensemble(experiment("proxy_anchor", [*words, "method.dim=4"]), 2, "seed")
        folder = RunFolder(root / "ens")
        plan.write(folder.path.parent / "ensemble.yaml")
        for index in range(plan.size):
            run_training(plan.member(index), folder.member(index), lambda epoch: None, HERE)
        (root / "ensemble.yaml").rename(folder.plan("ensemble"))
        members = [member_of(plan, folder, index) for index in range(plan.size)]
        rows = [member.embeddings() for member in members]
        curve = prefix_scores(rows, task_of(members), standard_metrics((1, 2)))
        scores = replace(joined(members, curve[-1], []), curve=curve, seed=plan.experiment.seed)
        scores.write(folder.scores)
        yield root


def experiment(method: str, words: list[str]) -> Experiment:
    return read_experiment(Path(f"experiments/{method}_demo.yaml"), words).experiment


def copy(runs: Path, target: Path) -> Path:
    for name in ("one", "ens"):
        shutil.copytree(runs / name, target / name, copy_function=os.link)
    return target


def merged(root: Path) -> dict[str, float]:
    plan = Merge((root / "one", root / "ens"))
    return merge(
        plan, RunFolder(root / "out"), HERE, lambda title: lambda done, total: None
    ).metrics


@cache
def plan_of_text(text: str) -> Experiment:
    """Cache the parsed YAML, which is the slowest part."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "experiment.yaml").write_text(text)
        return read_experiment(Path(folder) / "experiment.yaml").experiment


def plan_of(run: Path) -> Experiment:
    return plan_of_text((run / "experiment.yaml").read_text())


def evaluated(root: Path, run: str = "one") -> dict[str, float]:
    return evaluate(plan_of(root / run), RunFolder(root / run), HERE).metrics


def evaluated_member(root: Path) -> dict[str, float]:
    return evaluated(root, "ens/members/000")


def resumed(root: Path) -> dict[str, float]:
    return run_training(
        plan_of(root / "one"), RunFolder(root / "one"), lambda epoch: None, HERE
    ).metrics


def scored_again(root: Path) -> dict[str, float]:
    """Delete the scores, as a kill before their writing does."""
    (root / "one" / "scores.json").unlink()
    return resumed(root)


def averaged(root: Path) -> dict[str, float]:
    folder = RunFolder(root / "ens")
    return score_members(read_ensemble(folder.plan("ensemble")), folder).metrics


def recovered(root: Path) -> dict[str, float]:
    """Recover members as `dmlray ensemble --resume` does before it trains."""
    folder = RunFolder(root / "ens")
    with (console := Console()).capture():
        recover_members(read_ensemble(folder.plan("ensemble")), folder, Display(console))
    return {}


READERS: dict[str, tuple[Reader, ...]] = {
    "one/scores.json": (merged, resumed),
    "one/embeddings.npy": (merged,),
    "one/zero_shot.json": (evaluated,),
    "one/metrics.jsonl": (scored_again,),
    "one/checkpoints/best.pt": (evaluated,),
    "one/checkpoints/last.pt": (scored_again,),
    "ens/members/000/checkpoints": (evaluated_member,),
    "ens/scores.json": (merged,),
    "ens/members": (merged, averaged, recovered),
}


@pytest.fixture(scope="module")
def expected(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    readers = {reader for readers in READERS.values() for reader in readers}
    found = {
        reader: reader(copy(runs, tmp_path_factory.mktemp(reader.__name__))) for reader in readers
    }
    assert found[merged] != found[evaluated]  # else a lost member would go unnoticed
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_changed_run_ends_in_one_sentence_or_the_right_scores(
    mutant: Mutant, runs: Path, expected: Expected, tmp_path: Path
) -> None:
    readers = next(found for name, found in READERS.items() if mutant.file.startswith(name))
    for reader in readers:
        root = copy(runs, tmp_path / reader.__name__)
        mutant.change(root / mutant.file)
        if reader is resumed and mutant.kind.startswith("flipped"):
            continue  # no schema can detect one digit for another
        try:
            scores = reader(root)
        except DmlrayError as error:
            check_sentence(error)
        else:
            assert scores == pytest.approx(expected[reader], abs=1e-6)


def check_sentence(error: DmlrayError) -> None:
    text = str(error)
    assert isinstance(error, ConfigError) or "\n" not in text
    assert len(text) < 700
    assert ": " in text
    assert "weights_only" not in text
    assert "Error(" not in text


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 300


@pytest.mark.parametrize(
    ("mutant", "error"),
    [
        (Mutant("one/embeddings.npy", kind, array(make)), "was changed after its scores")
        for kind, make in SOUND_BUT_OTHERS.items()
    ]
    + [(Mutant("one/embeddings.npy", "", array(ARRAYS["huge"], older=True)), "length inf")],
    ids=str,
)
def test_embeddings_that_are_not_those_of_the_scores_are_refused(
    mutant: Mutant, error: str, runs: Path, tmp_path: Path
) -> None:
    mutant.change(copy(runs, tmp_path) / mutant.file)
    with pytest.raises(DmlrayError, match=f"{error}.*; delete it and resume"):
        merged(tmp_path)


def test_embeddings_that_were_deleted_are_made_again(
    runs: Path, expected: Expected, tmp_path: Path
) -> None:
    (copy(runs, tmp_path) / "one" / "embeddings.npy").unlink()
    assert resumed(tmp_path) == expected[resumed]
    original, again = (root / "one" / "embeddings.npy" for root in (runs, tmp_path))
    assert again.read_bytes() == original.read_bytes()
    assert merged(tmp_path) == expected[merged]


@pytest.mark.parametrize("file", ["scores.json", "embeddings.npy", "zero_shot.json"])
@pytest.mark.parametrize("kind", ["a folder", "cut at 0.5", "emptied"])
def test_a_member_whose_results_are_damaged_ends_with_the_right_scores(
    file: str, kind: str, runs: Path, expected: Expected, tmp_path: Path
) -> None:
    GENERIC[kind](copy(runs, tmp_path) / "ens" / "members" / "001" / file)
    recovered(tmp_path)
    folder = RunFolder(tmp_path / "ens")
    plan = read_ensemble(folder.plan("ensemble"))
    for index in range(plan.size):
        run_training(plan.member(index), folder.member(index), lambda epoch: None, HERE)
    assert averaged(tmp_path) == expected[averaged]
