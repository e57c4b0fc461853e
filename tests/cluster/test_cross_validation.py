"""An interrupted cross-validation resumes and trains nothing twice."""

from pathlib import Path

import pytest

from dmlray import api
from dmlray.cli import main
from dmlray.cli.parameters import as_command
from dmlray.errors import Interrupted
from dmlray.reporting.progress import SilentDisplay
from dmlray.reporting.tables import held_out_lines
from dmlray.scores import read_scores
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
FOLDS = 3


class InterruptedDisplay(SilentDisplay):
    """Interrupts the run once the first fold is trained, as Ctrl-C does."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._scored = run / "members/000/scores.json"

    def update(self, done: int, note: str = "") -> None:
        if self._scored.exists():
            raise KeyboardInterrupt


def test_folds_survive_an_interruption_and_none_is_trained_twice(
    tmp_path: Path, toy_images: Path, fake_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "torn"
    words = [*toy_words(toy_images, 4), f"protocol.folds={FOLDS}", "protocol.split=mlrc"]
    with pytest.raises(Interrupted) as caught:
        api.cross_validate("proxy_anchor_demo", words, out="torn", display=InterruptedDisplay(run))
    finished = {path: path.stat().st_mtime_ns for path in run.glob("members/*/scores.json")}
    assert finished
    assert caught.value.resume
    assert as_command(main)(caught.value.resume) == "dmlray cv --resume torn"
    assert not (run / "scores.json").exists()

    scores = api.cross_validate(resume=run).scores
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (scores.n, scores.split) == (FOLDS, f"{FOLDS} mlrc folds")
    assert scores == read_scores(run / "scores.json")
    assert scores.concatenated
    for fold, line in enumerate(held_out_lines(scores)):
        assert line.startswith(f"fold {fold}, on the training classes it held out, epoch ")
