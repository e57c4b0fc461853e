"""Display of a training that runs in another process."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from dmlray.cluster.train import EpochDisplay
from dmlray.learn import metrics_log
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display


def test_epochs_are_shown_and_then_other_counts(tmp_path: Path) -> None:
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    output, folder = io.StringIO(), RunFolder(tmp_path)
    display = Display(Console(file=output, width=200))
    display.start("epochs", 2)
    poll = EpochDisplay(plan, folder, display)
    poll()
    metrics_log.append(folder.metrics, {"epoch": 1, "loss": 2.0})
    poll()
    metrics_log.append(folder.metrics, {"epoch": 2, "loss": 1.0})  # seen with the first count
    for done in (5, 20):
        metrics_log.count(folder.progress_log, "k-means, iterations")(done, 20)
        poll()
    folder.progress_log.unlink()
    poll()
    assert [line.split(" (")[0] for line in output.getvalue().splitlines()] == [
        "epochs: 2 to do",
        "epochs: 2/2",
        "k-means, iterations: 20 to do",
        "k-means, iterations: 20/20",
    ]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"title": "half"}'])
def test_an_unreadable_count_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "counting.json").write_text(content)
    assert metrics_log.counted(tmp_path / "counting.json") is None
    assert metrics_log.counted(tmp_path / "missing.json") is None
