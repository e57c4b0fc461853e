"""`dmlray benchmark`: mistakes come before anything runs; a killed one keeps what is finished."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dmlray.api import benchmark_cells, benchmarks
from dmlray.api.benchmark_cells import run_cell
from dmlray.api.benchmarks import cells_at_once
from dmlray.cli import main
from dmlray.cluster.resources import Cluster
from dmlray.errors import ConfigError, DiskFullError, RunError
from dmlray.plans.benchmark import read_benchmark
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import SilentDisplay
from dmlray.scores import read_scores
from tests.cluster.commands import Command, in_this_process
from tests.results.test_leaderboard import cell
from tests.toy_data import draw_images

SET = {
    "data": {
        "batch_size": 8,
        "images_per_class": 4,
        "transform": {"size": 32, "eval_resize": 32, "padding": 2},
    },
    "backbone": {"name": "timm/test_resnet", "weights": "none"},
    "budget": {"head_warmup_steps": 5},
    "protocol": {"recall_at": [1, 2]},
}
ANCHOR = Path("experiments/proxy_anchor_demo.yaml").absolute()
PML = Path("experiments/pml_demo.yaml").absolute()


def plan_of(root: Path, **more: Any) -> dict[str, Any]:
    plan = {
        "budget": {"trials": 2, "folds": 2, "repeats": 2, "epochs": 1},
        "search": {"startup_trials": 1},
        "set": SET,
        "datasets": {name: {"name": "folder", "root": str(root / name)} for name in ("one", "two")},
        "methods": {
            "anchor": str(ANCHOR),
            "contrastive": {
                "experiment": str(PML),
                "set": {"method.loss": "ContrastiveLoss", "method.miner": None},
                "use_method_space": False,
                "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-3, "log": True}},
            },
        },
    }
    return {**plan, **more}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmark")
    draw_images(root / "one")
    draw_images(root / "two", 10, 6)
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(plan: dict[str, Any], *words: str) -> Result:
    Path("b.yaml").write_text(yaml.safe_dump(plan))
    return CliRunner().invoke(main, ["benchmark", "b.yaml", *words])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["methods.other=no.yaml"], "methods.other: no.yaml: no such file"),
        (["methods={}"], "methods: is empty"),
        (["datasets.two.nme=x"], "methods.anchor on two: data.nme: unknown key"),
        (["budget.folds=50"], "anchor on one, contrastive on one"),
        (["--resume", "nowhere"], "it takes no FILE"),
        (["--start-from", "nowhere"], "--start-from: nowhere holds no results"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    images: Path, folder: Path, words: list[str], complaint: str
) -> None:
    result = run(plan_of(images), *words)
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Traceback" not in result.output
    assert not Path("runs").exists()


def test_a_budget_that_no_cell_can_meet_names_the_cells(images: Path) -> None:
    cells = read_benchmark(plan_of(images), ["search.cpus=4096"]).cells
    with pytest.raises(ConfigError, match=r"and 1 more cells: asked for 4096 CPU"):
        cells_at_once(cells, Cluster(2, 0, 1))


def test_cells_run_side_by_side_where_the_cluster_holds_all_their_trials(images: Path) -> None:
    cells = read_benchmark(plan_of(images)).cells
    assert cells_at_once(cells, Cluster(2, 0, 1)) == 1
    assert cells_at_once(cells, Cluster(8, 0, 1)) == 4  # two trials, or two repeats, each


def test_a_cell_that_fails_is_a_result_and_a_full_disk_is_not(
    images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = read_benchmark(plan_of(images)).cells[0]

    def run_with(error: Exception) -> Any:
        def fail(**words: Any) -> None:
            raise error

        monkeypatch.setattr(benchmark_cells, "tune", fail)
        return run_cell(planned, RunFolder(folder / "b"), Cluster(2, 0, 1), SilentDisplay())

    found = run_with(RunError("no trial succeeded: the loss is not finite"))
    assert found.failure == "no trial succeeded: the loss is not finite"
    assert (found.method, found.dataset, found.tuned) == ("anchor", "one", None)
    with pytest.raises(DiskFullError):
        run_with(DiskFullError("the disk is full"))


def test_a_result_counts_for_its_own_data_set_alone(images: Path, folder: Path) -> None:
    """Both data sets are folders, and a plan's fingerprint does not hold where images lie."""
    one, _, two, _ = read_benchmark(plan_of(images)).cells
    assert (one.method, one.fingerprint) == (two.method, two.fingerprint)
    replace(cell("anchor", 0.3, "two"), plan=two.fingerprint).write(folder)
    known = benchmarks._results(folder, read_benchmark(plan_of(images)))
    assert [(found.dataset, found.method) for found in known] == [("two", "anchor")]
    run: Any = SimpleNamespace(folder=RunFolder(folder / "b"), plan=read_benchmark(plan_of(images)))
    missing = [(found.dataset, found.method) for found in benchmarks._missing(run, known)]
    assert missing == [("one", "anchor"), ("one", "contrastive"), ("two", "contrastive")]


def test_finished_cells_are_taken_from_earlier_results(images: Path, folder: Path) -> None:
    """All cells are there, so that nothing runs: Ray is not even started."""
    cells = read_benchmark(plan_of(images)).cells
    for planned in cells:
        done = replace(cell(planned.method, 0.3, planned.dataset), plan=planned.fingerprint)
        Path("results").mkdir(exist_ok=True)
        done.write(Path("results"))
    result = run(plan_of(images), "--start-from", "results", "--out", "runs/b")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("runs/b/results").iterdir()} == {
        path.name for path in Path("results").iterdir()
    }
    assert "mean rank  method" in result.output
    document = json.loads(Path("runs/b/leaderboard.json").read_text())
    assert list(document["datasets"]) == ["one", "two"]

    again = CliRunner().invoke(main, ["benchmark", "--resume", "runs/b"])
    assert again.exit_code == 0, again.output
    Path("runs/b/leaderboard.html").unlink()
    report = CliRunner().invoke(main, ["report", "runs/b"])
    assert "report:  runs/b/leaderboard.html" in report.output
    assert Path("runs/b/leaderboard.html").exists()
    for words in (["compare", "runs/b"], ["evaluate", "runs/b"], ["show", "b.yaml"]):
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code == 2
        assert "is a benchmark" in refused.output

    other = run(plan_of(images), "budget.epochs=2", "--start-from", "results", "--resume", "runs/b")
    assert other.exit_code == 2
    file = Path("runs/b/results/one.anchor.json")
    file.write_text(file.read_text().replace(cells[0].fingerprint, "0" * 64))
    changed = CliRunner().invoke(main, ["benchmark", "--resume", "runs/b"])
    assert changed.exit_code == 2
    assert "is the result of another plan of this cell. Allowed: delete it" in changed.output


@pytest.mark.slow
def test_a_killed_benchmark_keeps_what_is_finished_and_repeats_nothing(
    images: Path, folder: Path, environment: dict[str, str]
) -> None:
    """One of two cells is finished from the start, by an earlier benchmark."""
    plan = plan_of(images)
    plan["methods"].pop("anchor")
    plan["search"]["trials_at_once"] = 1  # one process trains both
    (folder / "b.yaml").write_text(yaml.safe_dump(plan))
    _, other = read_benchmark(plan).cells
    done = replace(cell("contrastive", 0.3, "two"), plan=other.fingerprint, budget=plan["budget"])
    (folder / "earlier").mkdir()
    done.write(folder / "earlier")
    run = folder / "run"
    words = ["benchmark", "b.yaml", "--out", "run", "--start-from", "earlier"]
    command = Command(words, folder, environment)
    repeats = "cells/one/contrastive/search/repeat/members/*/experiment.yaml"
    command.until(lambda: any(run.glob(repeats)))
    command.kill(signal.SIGKILL)
    command.finish()
    finished = {path: path.read_bytes() for path in run.glob("results/*")}
    assert [path.name for path in finished] == ["two.contrastive.json"]
    search = run / "cells/one/contrastive/search"
    before = (search / "trials.json").read_bytes()
    status, output = in_this_process(["benchmark", "--resume", "run"], folder, environment)
    assert status == 0, output
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert not (run / "cells/two").exists()
    assert (
        json.loads(before)["trials"] == json.loads((search / "trials.json").read_bytes())["trials"]
    )
    board = json.loads((run / "leaderboard.json").read_text())["datasets"]["one"]
    scores = read_scores(search / "repeat/scores.json")
    (row,) = (row for row in board["rows"] if row["method"] == "contrastive")
    assert row["scores"]["metrics"]["map_at_r"] == pytest.approx(scores.metrics["map_at_r"])
