"""What the driver shows of a training whose worker is another process."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from dmlray.cluster.train import EpochDisplay
from dmlray.learn import metrics_log
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display


def test_epochs_are_shown_and_after_them_what_is_counted(tmp_path: Path) -> None:
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    said, folder = io.StringIO(), RunFolder(tmp_path)
    display = Display(Console(file=said, width=200))
    display.start("epochs", 2)
    look = EpochDisplay(plan, folder, display)
    look()
    metrics_log.append(folder.metrics, {"epoch": 1, "loss": 2.0})
    look()
    metrics_log.append(folder.metrics, {"epoch": 2, "loss": 1.0})  # seen with the first count
    for done in (5, 20):
        metrics_log.count(folder.progress_log, "k-means, iterations")(done, 20)
        look()
    folder.progress_log.unlink()
    look()
    assert [line.split(" (")[0] for line in said.getvalue().splitlines()] == [
        "epochs: 2 to do",
        "epochs: 2/2",
        "k-means, iterations: 20 to do",
        "k-means, iterations: 20/20",
    ]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"title": "half"}'])
def test_a_count_that_cannot_be_read_counts_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "counting.json").write_text(content)
    assert metrics_log.counted(tmp_path / "counting.json") is None
    assert metrics_log.counted(tmp_path / "missing.json") is None
