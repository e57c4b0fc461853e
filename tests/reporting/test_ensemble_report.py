"""The report of a merge compares its members."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dmlray
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import repeats
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.average_log import log_averages
from dmlray.results import member_analysis
from dmlray.results.member_analysis import analyse_members
from dmlray.scores import read_scores
from tests.reporting.test_run_report import Reader, scores
from tests.toy_data import draw_images, toy_words

CPU = torch.device("cpu")
EXPERIMENT = Path("experiments/proxy_anchor_demo.yaml").absolute()
HOSTILE = "<script>alert(1)<|script>\t\n"
SIZE, IMAGES = 3, 24


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three trainings, on images of which one class has a hostile name."""
    root = tmp_path_factory.mktemp("members")
    images = draw_images(root / "images", images=4)
    (images / "class11").rename(images / f"class11{HOSTILE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        for seed in range(SIZE):
            plan = read_experiment(EXPERIMENT, [*toy_words(images, 1), f"seed={seed}"]).experiment
            run = RunFolder(root / f"m{seed}")
            run_training(plan, run, lambda epoch: None, Runtime(CPU), False)
        yield root


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed in range(SIZE):
        shutil.copytree(trained / f"m{seed}", tmp_path / f"m{seed}")
    monkeypatch.setenv("DMLRAY_CACHE", str(trained / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(*names: str, **options: object) -> RunFolder:
    dmlray.merge(list(names), out="merged", display=None, **options)  # type: ignore[arg-type]
    return RunFolder(Path("merged"))


def hits(name: str) -> list[bool]:
    """Whether the nearest image is of the same class, retyped."""
    rows = np.load(f"{name}/embeddings.npy").astype(np.float64)
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -np.inf)
    labels = np.arange(IMAGES) // 4
    return (labels[similarities.argmax(1)] == labels).tolist()


def test_a_merge_says_how_alike_its_members_are_and_what_each_adds(folder: Path) -> None:
    run = merge("m0", "m1", "m2")
    found = analyse_members(run, CPU)
    each = [hits(f"m{number}") for number in range(SIZE)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    alike = [fmean(a == b for a, b in zip(each[i], each[j], strict=True)) for i, j in pairs]
    assert found.agreement == pytest.approx(fmean(alike))
    recall = [fmean(map(float, row)) for row in each]
    assert [row.scores["recall_at_1"] for row in found.rows] == pytest.approx(recall)
    chance = [recall[i] * recall[j] + (1 - recall[i]) * (1 - recall[j]) for i, j in pairs]
    assert found.by_chance == pytest.approx(fmean(chance))
    whole = read_scores(run.scores).metrics["map_at_r"]
    for number, row in enumerate(found.rows):
        others = [f"m{n}" for n in range(SIZE) if n != number]
        shutil.rmtree("other", ignore_errors=True)
        rest = dmlray.merge(others, out="other", display=None).scores.metrics["map_at_r"]
        assert row.adds["map_at_r"] == pytest.approx(whole - rest, abs=1e-6)
    text = run.report.read_text()
    assert f"Two members agree on {found.agreement:.1%} of the queries" in text
    (cells,) = [cells for cells in Reader(text).rows if cells and cells[0].endswith("m1")]
    assert cells[-1] == f"{100 * found.rows[1].adds['map_at_r']:+.2f}"
    table = list(csv.DictReader(run.table("members").open()))
    assert float(table[2]["agreement"]) == pytest.approx(found.rows[2].agreement)


def test_a_projection_has_no_contributions_and_one_member_no_table(folder: Path) -> None:
    run = merge("m0", "m1", pca=4)
    assert [row.adds for row in analyse_members(run, CPU).rows] == [{}, {}]
    shutil.rmtree("merged")
    run = merge("m0")
    assert "Members" not in run.report.read_text()


def test_a_part_of_many_queries_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = merge("m0", "m1")
    monkeypatch.setattr(member_analysis, "_MOST_QUERIES", 8)
    found = analyse_members(run, CPU)
    assert (found.queries, found.all_queries) == (8, IMAGES)
    assert found.rows[0].scores["recall_at_1"] == pytest.approx(fmean(map(float, hits("m0")[::3])))
    dmlray.report("merged", display=None)
    assert "(8 of 24 queries)" in run.report.read_text()


def test_where_a_member_is_gone_the_page_says_so(folder: Path) -> None:
    run = merge("m0", "m1")
    shutil.rmtree("m1")
    dmlray.report("merged", display=None)
    assert "Its members are not compared: " in run.report.read_text()


def test_a_merge_logs_to_the_loggers_of_its_runs(folder: Path) -> None:
    plan = Path("m1/experiment.yaml")
    plan.write_text(plan.read_text().replace("- tensorboard", "- mlflow"))
    pytest.importorskip("mlflow")
    run = merge("m1")
    assert run.logger_run("mlflow").exists()
    assert not list(run.path.glob("events.out*"))
    shutil.rmtree("merged")
    assert list(merge("m0").path.glob("events.out*"))


def test_averages_are_logged_by_the_loggers_of_the_plan(tmp_path: Path) -> None:
    plan = read_experiment(EXPERIMENT).experiment
    shown = scores(n=2, half_width={"map_at_r": 0.05}, concatenated={"map_at_r": 0.3}, curve=[])
    for _ in range(2):  # a resumed run logs again
        log_averages(RunFolder(tmp_path), repeats(plan, 2).experiment, shown)
    (file,) = tmp_path.glob("events.out*")
    board = EventAccumulator(str(file)).Reload()
    for tag, value in {
        "test/map_at_r": 0.25, "test/map_at_r_half_width": 0.05,
        "test/concatenated/map_at_r": 0.3,
    }.items():  # fmt: skip
        (scalar,) = board.Scalars(tag)
        assert (scalar.step, round(scalar.value, 6)) == (2, value)


def test_averages_of_a_resumed_run_continue_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    plan, run = read_experiment(EXPERIMENT, ["loggers=[mlflow]"]).experiment, RunFolder(tmp_path)
    for _ in range(2):
        log_averages(run, plan, scores(curve=[]))
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == tmp_path.name]
    (found,) = client.search_runs([experiment.experiment_id])
    (value,) = client.get_metric_history(found.info.run_id, "test/map_at_r")
    assert (value.step, value.value) == (1, 0.25)
    assert found.data.params["method.name"] == "proxy_anchor"
