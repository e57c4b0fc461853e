"""A metric that the protocol asks for is in scores, tables, TensorBoard and ensembles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dmlray.cluster.ensemble.merge_actor import Merger
from dmlray.errors import ConfigError
from dmlray.evaluation.clustering import clustering_scores
from dmlray.evaluation.metrics import METRICS, RetrievalMetric
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import metrics_log
from dmlray.learn.preflight import preflight
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.run_report import page, write_ensemble
from dmlray.reporting.tables import print_table
from dmlray.results.averages import score_members
from dmlray.results.finished_runs import Member, ensemble_curve, joined, member_of
from dmlray.results.finished_runs import test_task as task_of
from dmlray.results.merge_runs import merge
from dmlray.scores import Scores, read_scores
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))
RETRIEVED = ["precision_at_3", "mean_average_precision_at_3"]
CLUSTERED = ["ami", "pairwise_f1"]
LABELS = ["Precision@3", "mAP@3", "AMI", "pairwise F1"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    words = [
        *toy_words(images, 2),
        "protocol.folds=3",
        f"protocol.extra_metrics=[{', '.join([*RETRIEVED, *CLUSTERED])}]",
        "protocol.metric=precision_at_3",
        "protocol.selection=validation",
    ]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.fixture(scope="module")
def ensemble(plan: Experiment, tmp_path_factory: pytest.TempPathFactory) -> list[Member]:
    """Two finished members."""
    whole, folder = Ensemble(plan, 2, "seed"), RunFolder(tmp_path_factory.mktemp("runs") / "run")
    for index in range(2):
        run_training(whole.member(index), folder.member(index), lambda epoch: None, RUNTIME)
    return [member_of(whole, folder, index) for index in range(2)]


def test_scores_hold_it_and_epochs_are_chosen_by_it(ensemble: list[Member]) -> None:
    member = ensemble[0]
    scores = read_scores(member.folder.scores)
    task, rows = task_of(ensemble), member.embeddings()
    expected = retrieval_scores(rows, task, RETRIEVED)
    expected |= clustering_scores(rows, task.labels, CLUSTERED)
    assert {name: scores.metrics[name] for name in expected} == expected
    assert scores.clustering == "faiss k-means, 20 iterations, seed 1234"
    lines = metrics_log.read(member.folder.metrics)
    assert all(name in line for name in RETRIEVED for line in lines)
    assert not any(name in line for name in CLUSTERED for line in lines)
    best = max(lines, key=lambda line: line["precision_at_3"])["epoch"]
    kept = torch.load(member.folder.best_checkpoint, weights_only=True)["progress"]
    assert kept["best_epoch"] == best
    with (console := Console(width=200)).capture() as shown:
        print_table([("run", scores.metrics)], scores, console)
    assert all(label in shown.get() for label in LABELS)


def test_ensembles_of_every_size_have_it(ensemble: list[Member], tmp_path: Path) -> None:
    task, protocol = task_of(ensemble), ensemble[0].plan.protocol
    sizes: list[tuple[int, int]] = []
    curve = ensemble_curve(
        ensemble, task, protocol, RUNTIME.device, lambda *count: sizes.append(count)
    )
    assert sizes == [(1, 2), (2, 2)]
    rows = torch.cat([member.embeddings() for member in ensemble], 1)
    expected = retrieval_scores(rows, task, RETRIEVED)
    expected |= clustering_scores(rows, task.labels, CLUSTERED)
    assert {name: curve[1][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert curve[0] == pytest.approx(ensemble[0].scores.metrics, abs=1e-6)
    merger = Merger(task, protocol, 1, False)
    assert len(merger.add(ensemble[:1])) == 1
    for grown, at_once in zip(merger.add(ensemble), curve, strict=True):
        assert grown == pytest.approx(at_once, abs=1e-6)
    scores = joined(ensemble, curve[-1], [])
    write_ensemble(RunFolder(tmp_path), Scores(**{**vars(scores), "curve": curve}))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in (*RETRIEVED, *CLUSTERED):
        found = [event.value for event in events.Scalars(f"test/{name}")]
        assert found == pytest.approx([size[name] for size in curve], abs=1e-6)
    assert all(f"<th>{label}</th>" in page("x", scores) for label in LABELS)
    assert read_scores(RunFolder(tmp_path).scores).clustering


def test_merges_and_folds_have_it(plan: Experiment, ensemble: list[Member], tmp_path: Path) -> None:
    runs = tuple(member.folder.path for member in ensemble)
    for options in ({}, {"pca": 3}, {"greedy": True}):
        settings = Merge(runs, **options)
        folder = RunFolder(tmp_path / "_".join(options))
        scores = merge(settings, folder, RUNTIME, lambda title: lambda done, total: None)
        assert {*RETRIEVED, *CLUSTERED} < scores.metrics.keys()
        assert scores.clustering
    folds = Ensemble(override(plan, "test", {"protocol.folds": 3}), 3, "fold")
    for index in range(3):
        place = RunFolder(tmp_path / "cv").member(index)
        run_training(folds.member(index), place, lambda epoch: None, RUNTIME)
    averaged = score_members(folds, RunFolder(tmp_path / "cv"))
    assert {*RETRIEVED, *CLUSTERED} < averaged.concatenated.keys()
    assert {*RETRIEVED, *CLUSTERED} < averaged.half_width.keys()


def test_a_new_metric_is_one_entry(
    plan: Experiment, ensemble: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = RetrievalMetric(
        "discounted_gain",
        "DCG of the first hit",
        compute=lambda ranked, _: 1 / (ranked.first + 2).double().log2(),
        needs="first",
    )
    monkeypatch.setitem(METRICS, entry.name, entry)
    changes = {"protocol.extra_metrics": ["discounted_gain"], "protocol.metric": "discounted_gain"}
    asked, task = override(plan, "test", changes).protocol, task_of(ensemble)
    curve = ensemble_curve(ensemble, task, asked, RUNTIME.device)
    assert "<th>DCG of the first hit</th>" in page("x", joined(ensemble, curve[-1], []))
    rows = ensemble[0].embeddings().double()
    order = (rows @ rows.T).fill_diagonal_(-torch.inf).argsort(dim=1, descending=True)
    first = (task.labels[order] == task.labels[:, None]).int().argmax(1) + 1
    found = retrieval_scores(rows, task, asked.retrieval_metrics(task.neighbours))
    expected = float(np.mean(1 / np.log2(first.numpy() + 1)))
    assert found["discounted_gain"] == pytest.approx(expected)
    assert curve[0]["discounted_gain"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "ami"}, "protocol.metric: 'ami' is not allowed. Allowed: recall_at_K, r_prec"),
        ({"metric": "seconds"}, "protocol.metric: 'seconds' is not allowed"),
        ({"extra_metrics": ["f1"]}, "protocol.extra_metrics: unknown metric 'f1'. Allowed: recall"),
    ],
)
def test_what_is_no_metric_is_refused(
    plan: Experiment, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        override(plan, "test", {f"protocol.{key}": value for key, value in changes.items()})


def test_a_k_beyond_the_images_is_left_out_or_refused(
    plan: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    deep = override(plan, "test", {"protocol.extra_metrics": ["precision_at_16"]})
    preflight(deep)
    said = "protocol: Precision@16 is left out where a query is compared with only 15 images"
    assert said in caplog.messages
    with pytest.raises(ConfigError, match="precision_at_16 needs more than the 15 images"):
        preflight(override(plan, "test", {"protocol.metric": "precision_at_16"}))
