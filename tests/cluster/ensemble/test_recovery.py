"""Damaged parts of a member's folder are computed again; valid ones are kept."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dmlray.cluster.ensemble.recovery import recover_members
from dmlray.errors import ConfigError
from dmlray.evaluation.verification import Verification
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.scores import Scores, read_scores

DREML = read_experiment(Path("experiments/dreml_demo.yaml")).experiment
PLAN = Ensemble(DREML, 2, "seed")
SCORES = Scores({"map_at_r": 0.5}, "demo", "f", "s", 2, 6, "dreml", "b", 4, "last", None, 0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """An ensemble whose first member is finished and whose second has not started."""
    folder = RunFolder(tmp_path / "run")
    member = folder.member(0)
    write_experiment(member.plan("experiment"), PLAN.member(0))
    member.last_checkpoint.parent.mkdir()
    member.last_checkpoint.write_bytes(b"never read here")
    member.zero_shot.write_text(json.dumps({"map_at_r": 0.1}))
    np.save(member.embeddings, np.eye(6, 4, dtype=np.float32))
    SCORES.write(member.scores)
    return folder


def recovered(folder: RunFolder) -> str:
    """Recover the members; return the displayed text."""
    with (console := Console(width=1000)).capture() as output:
        recover_members(PLAN, folder, Display(console))
    return output.get()


def test_valid_files_are_kept_without_a_message(folder: RunFolder) -> None:
    folder.member(1).path.mkdir()  # killed before it wrote anything
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert recovered(folder) == ""
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def cut(path: Path) -> None:
    """Keep the header and cut half of the body."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 48])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("embeddings.npy", cut),
        ("embeddings.npy", Path.unlink),
        ("embeddings.npy", lambda path: path.write_bytes(b"")),
        ("embeddings.npy", lambda path: np.save(path, np.eye(5, 4))),
        ("scores.json", cut),
        ("scores.json", lambda path: path.write_bytes(b"\xff\x00")),
    ],
)
def test_damaged_results_are_computed_again_from_the_checkpoint(
    folder: RunFolder, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder.member(0).path / name)
    assert "members/000: its results are damaged; computed again\n" in recovered(folder)
    assert not folder.member(0).scores.exists()
    assert folder.member(0).last_checkpoint.exists()


def test_damaged_validation_embeddings_are_computed_again(folder: RunFolder) -> None:
    member = folder.member(0)
    np.save(member.validation_embeddings, np.eye(3, 4, dtype=np.float32))
    found = Verification({}, 1, 3, 6, 0)
    replace(SCORES, verification=found).write(member.scores)
    assert recovered(folder) == ""
    cut(member.validation_embeddings)
    assert "members/000: its results are damaged; computed again\n" in recovered(folder)
    assert not member.scores.exists()


@pytest.mark.parametrize("name", ["experiment.yaml", "zero_shot.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{a: [", b"3: 4\n- 5"])
def test_a_member_with_a_damaged_plan_or_checkpoint_is_trained_from_its_start(
    folder: RunFolder, name: str, content: bytes
) -> None:
    (folder.member(0).path / name).write_bytes(content)
    output = recovered(folder)
    assert output.startswith("member 0: ")
    assert f"000/{name}: " in output
    assert output.endswith("; trained again from its start\n")
    assert output.count("\n") == 1
    assert not folder.member(0).path.exists()


def test_results_without_a_plan_are_not_used(folder: RunFolder) -> None:
    folder.member(0).plan("experiment").unlink()
    assert "trained again from its start" in recovered(folder)


def test_a_member_of_another_plan_is_refused_and_not_changed(
    folder: RunFolder,
) -> None:
    other = Ensemble(DREML.model_copy(update={"seed": 7}), 2, "seed")
    write_experiment(folder.member(1).plan("experiment"), other.member(1))
    with pytest.raises(ConfigError, match=r"001: was begun with seed 700022, not 1\. Allowed"):
        recovered(folder)
    assert asdict(read_scores(folder.member(0).scores)) == asdict(SCORES)
    assert folder.member(1).plan("experiment").exists()


def test_a_file_in_place_of_a_member_is_refused(folder: RunFolder) -> None:
    folder.member(1).path.write_bytes(b"")
    with pytest.raises(ConfigError, match="001: is not a folder"):
        recovered(folder)
    assert folder.member(1).path.exists()


def test_a_linked_member_is_only_unlinked(folder: RunFolder, tmp_path: Path) -> None:
    elsewhere = folder.member(0).path.rename(tmp_path / "elsewhere")
    folder.member(0).path.symlink_to(elsewhere)
    (elsewhere / "experiment.yaml").write_bytes(b"")
    assert "trained again from its start" in recovered(folder)
    assert not folder.member(0).path.exists()
    assert (elsewhere / "scores.json").exists()
