"""Every command that trains gives a student its teacher's vectors, once the run has begun."""

from pathlib import Path

import pytest
import torch

from dmlray.errors import RunError
from tests.api.commands import nothing_trains, run
from tests.toy_data import toy_words

EXPERIMENT = str(Path("experiments/distil_demo.yaml").absolute())
COMMANDS = {
    "train": ["train", EXPERIMENT],
    "tune": ["tune", str(Path("searches/distil_demo.yaml").absolute())],
    "cv": ["cv", EXPERIMENT],
    "repeat": ["repeat", EXPERIMENT],
    "ensemble": ["ensemble", "--experiment", EXPERIMENT],
}


def words(kind: str, images: Path) -> list[str]:
    return [*COMMANDS[kind], "--out", "run", *toy_words(images, 1), "protocol.folds=2"]


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("kind", COMMANDS)
def test_without_a_teacher_nothing_begins(kind: str, images: Path) -> None:
    for more, complaint in (
        ([], "method.teacher: is missing. Allowed: the folder of a finished run or of an exported"),
        (["method.teacher=gone"], "gone: no such folder. Allowed: a finished run or a model"),
    ):
        result = run(*words(kind, images), *more)
        assert (result.exit_code, complaint in result.output) == (2, True), result.output
        assert not Path("run").exists()


@pytest.mark.usefixtures("no_ray")
def test_a_forecast_asks_for_the_teacher_too(images: Path) -> None:
    result = run("plan", EXPERIMENT, *toy_words(images, 1))
    assert (result.exit_code, "method.teacher: is missing" in result.output) == (2, True)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("kind", COMMANDS)
def test_vectors_are_there_before_anything_trains_and_are_kept(
    kind: str, images: Path, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch, RunError("it would train now"))
    result = run(*words(kind, images), f"method.teacher={finished[0]}")
    assert "it would train now" in result.output
    file = Path("run/teacher.pt")
    content = torch.load(file, weights_only=True)
    assert len(content["rows"]) == 24  # images of the training classes
    Path(finished[0]).rename("moved")
    before = file.stat().st_mtime_ns
    assert "it would train now" in run(kind, "--resume", "run").output
    assert file.stat().st_mtime_ns == before


def test_a_teacher_is_the_same_for_all_trials(images: Path) -> None:
    space = ["space.method.teacher.choices=[one, other]", "method.teacher=one"]
    result = run(*words("tune", images), *space)
    assert result.exit_code == 2
    assert "method.teacher: trials that differ in it measure different things" in result.output
