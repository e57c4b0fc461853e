"""Frozen backbones side by side, and models on other data."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dmlray
from dmlray.cli.commands import main
from dmlray.evaluation.significance import class_interval
from dmlray.inference.evaluate import other_data
from dmlray.inference.export import export
from dmlray.inference.load import load_model
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import protocol_line, read_scores
from tests.toy_data import draw_images, toy_words

DEMO = Path("experiments/proxy_anchor_demo.yaml").absolute()
BACKBONES = ["timm/test_resnet", "timm/test_resnet:max"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zero_shot")
    draw_images(root / "images")
    return root


@pytest.fixture(autouse=True)
def cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(root / "cache"))


def words(root: Path, *more: str) -> list[str]:
    large = ("data.transform.size=64", "data.transform.eval_resize=64")  # maps of 2 x 2
    held_out = ("protocol.folds=3", "protocol.selection=validation")
    return [*toy_words(root / "images"), *large, *held_out, *more]


@pytest.fixture(scope="module")
def compared(root: Path) -> dmlray.ZeroShotResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        return dmlray.zero_shot(
            DEMO, words(root), backbones=BACKBONES, out=root / "two", display=None
        )


def recall_at_1(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    cosines = rows @ rows.T - 3 * np.eye(len(rows))
    hits: np.ndarray = labels[cosines.argmax(1)] == labels
    return hits.astype(float)


def test_each_backbone_is_scored_on_validation_and_test_classes(
    compared: dmlray.ZeroShotResult, root: Path
) -> None:
    average, most = compared.comparison.rows
    assert (average.pooling, most.pooling) == ("avg", "max")
    assert average.test != most.test
    for row in compared.comparison.rows:
        assert row.milliseconds > 0
        assert "nothing trained" in row.protocol
        model = load_model(compared.folder.path / row.run)
        assert model.dimension == row.embedding_size
        sides = (("validation", row.validation, range(2)), ("test", row.test, range(6, 12)))
        for _, found, classes in sides:  # the first fold of six training classes, and the others
            files = [f for c in classes for f in sorted((root / f"images/class{c:02d}").iterdir())]
            labels = np.repeat(np.arange(len(classes)), 8)
            hits = recall_at_1(model.embed(files), labels)
            score, drawn = found["recall_at_1"], class_interval(hits, labels)
            assert score.value == pytest.approx(hits.mean(), abs=1e-6)
            assert drawn is not None
            assert (score.low, score.high) == pytest.approx((drawn.low, drawn.high))
            assert score.low is not None
            assert score.high is not None
            assert score.low <= score.value <= score.high
    scored = compared.comparison.validation
    assert (scored.classes, scored.images, compared.comparison.test.images) == (2, 16, 48)


def test_the_file_holds_what_was_returned(compared: dmlray.ZeroShotResult) -> None:
    held = json.loads((compared.folder.path / "backbones.json").read_text())
    assert [row["run"] for row in held["rows"]] == ["timm_test_resnet_avg", "timm_test_resnet_max"]
    assert held["interval"].startswith("95 %")
    records = compared.records()
    value = held["rows"][1]["test"]["map_at_r"]
    assert records[1]["test/map_at_r"] == value["value"]
    assert records[1]["test/map_at_r_low"] == value["low"]


def test_the_same_command_adds_what_is_missing(
    compared: dmlray.ZeroShotResult, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    whole = dmlray.api.backbones.score_backbone  # type: ignore[attr-defined]

    def counted(plan: Experiment, folder: RunFolder, runtime: Runtime) -> object:
        scored.append(folder.path.name)
        return whole(plan, folder, runtime)

    monkeypatch.setattr("dmlray.api.backbones.score_backbone", counted)
    more = [*BACKBONES, "timm/test_resnet:avg+max"]
    again = dmlray.zero_shot(
        DEMO, words(root), backbones=more, out=compared.folder.path, display=None
    )
    assert scored == ["timm_test_resnet_avg_max"]
    assert list(again.comparison.rows[:2]) == list(compared.comparison.rows)


def test_the_command_prints_a_table_and_its_protocol(
    compared: dmlray.ZeroShotResult, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    names = ",".join(BACKBONES)
    run = [
        "zero-shot",
        str(DEMO),
        *words(root),
        "--backbones",
        names,
        "--out",
        str(compared.folder.path),
    ]
    output = CliRunner().invoke(main, run).output
    assert "test MAP@R" in output
    row = compared.comparison.rows[1].test["recall_at_1"]
    assert f"{100 * row.value:.1f}" in output
    assert "nothing was trained" in output
    assert "best MAP@R on validation: timm/test_resnet" in output


def test_no_experiment_is_needed(root: Path, tmp_path: Path) -> None:
    changes = {
        "data.name": "folder", "data.root": str(root / "images"), "backbone.weights": "none",
        "data.transform.size": 64, "data.transform.eval_resize": 64,
    }  # fmt: skip
    found = dmlray.zero_shot(
        None, changes, backbones=["timm/test_resnet"], out=tmp_path / "run", display=None
    )
    assert found.comparison.best.backbone == "timm/test_resnet"


def test_all_classes_leave_validation_scores_alone(root: Path) -> None:
    every = words(root, "data.split=all", "protocol.selection=last")
    found = dmlray.zero_shot(
        DEMO, every, backbones=["timm/test_resnet"], out=root / "every", display=None
    )
    (row,) = found.comparison.rows
    assert row.test == {}
    assert found.comparison.validation.which == "all training classes"
    assert found.comparison.validation.images == 96


def test_an_experiment_with_a_teacher_needs_none_to_score_backbones(root: Path) -> None:
    plan = DEMO.with_name("distil_demo.yaml")
    found = dmlray.zero_shot(
        plan, words(root), backbones=["timm/test_resnet"], out=root / "taught", display=None
    )
    assert not (root / "taught" / "timm_test_resnet_avg" / "teacher.pt").exists()
    assert "teacher" not in found.comparison.best.protocol


@pytest.mark.parametrize(
    ("more", "names", "problem"),
    [
        ([], "timm/test_resnet,timm/test_resnet:avg", "is named twice"),
        ([], ",", "--backbones: names none"),
        ([], "no_such_net", "no_such_net"),
        ([], "timm/test_resnet:cls", "cls needs a network with a class token"),
        (["seed=8"], "timm/test_resnet", "was begun with"),
        (["data.transform.size=32"], "timm/test_resnet:avg+max", "was begun with data.transform"),
        (["protocol.metric=recall_at_2"], "timm/test_resnet:avg+max", "was begun with protocol.m"),
        (["protocol.selection=last"], "timm/test_resnet:avg+max", "was begun with protocol.sel"),
        (["protocol.fold=1"], "timm/test_resnet:avg+max", "was begun with protocol.fold"),
        (["data.split=all"], "timm/test_resnet", "was begun with"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    compared: dmlray.ZeroShotResult, root: Path, more: list[str], names: str, problem: str
) -> None:
    before = (compared.folder.path / "backbones.json").read_text()
    run = ["zero-shot", str(DEMO), *words(root, *more), "--backbones", names]
    result = CliRunner().invoke(main, [*run, "--out", str(compared.folder.path)])
    assert result.exit_code == 2
    assert problem in result.output
    assert "Traceback" not in result.output
    assert (compared.folder.path / "backbones.json").read_text() == before


def test_a_folder_of_something_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run = [
        "zero-shot",
        str(DEMO),
        *words(root),
        "--backbones",
        "timm/test_resnet",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 2
    assert "is no comparison of backbones" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture(scope="module")
def trained(root: Path) -> Path:
    """A training of one epoch, and `other` images of four classes."""
    draw_images(root / "other", classes=4, images=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        plan = read_experiment(DEMO, words(root, "budget.epochs=1")).experiment
        here = Runtime(torch.device("cpu"))
        run_training(plan, RunFolder(root / "trained"), lambda epoch: None, here, False)
        every = override(plan, "t", {"data.split": "all", "protocol.selection": "last"})
        run_training(every, RunFolder(root / "deployed"), lambda epoch: None, here, False)
        export(root / "trained", root / "model")
    return root / "trained"


def test_a_model_is_scored_on_other_data_in_a_file_of_its_own(trained: Path, root: Path) -> None:
    own = (trained / "scores.json").read_text()
    data = ["data.name=folder", f"data.root={root / 'other'}", "data.split=all"]
    files = sorted((root / "other").rglob("*.png"))
    labels = np.repeat(np.arange(4), 5)
    for folder in (trained, root / "model"):
        scores, _ = dmlray.evaluate(folder, data, display=None)
        hits = recall_at_1(load_model(folder).embed(files), labels)
        assert scores.metrics["recall_at_1"] == pytest.approx(hits.mean())
        assert (scores.test_classes, scores.test_images) == (4, 20)
        assert "OTHER DATA than the training's (folder " in protocol_line(scores)
        (written,) = folder.glob("evaluation_folder_all_*.json")
        assert read_scores(written) == scores
    assert (trained / "scores.json").read_text() == own


def test_half_of_the_classes_are_scored_as_the_split_says(trained: Path, root: Path) -> None:
    data = {"data.name": "folder", "data.root": str(root / "other"), "protocol.nmi": True}
    scores, _ = dmlray.evaluate(trained, data, display=None)
    assert scores.test_classes == 2
    assert {"nmi", "recall_at_2", "map_at_r"} <= scores.metrics.keys()


def test_classes_that_were_trained_on_are_named(trained: Path, root: Path) -> None:
    data = ["data.name=folder", f"data.root={root / 'images'}"]
    seen = "some of these classes were trained on"
    for run, more, expected in (
        (trained, [], False),
        (trained, ["data.split=all"], True),
        (root / "deployed", [], True),
    ):
        scores, _ = dmlray.evaluate(run, [*data, *more], display=None)
        assert (seen in scores.remarks) == expected
    own = read_scores(trained / "scores.json").metrics
    assert dmlray.evaluate(trained, data, display=None).metrics == pytest.approx(own, abs=1e-6)


def test_classes_that_trained_are_known_by_their_images_in_any_split(root: Path) -> None:
    """A training on the second half of the classes, as a CSV file says."""
    rows = ["path,label,split"]
    for number in range(6):
        side = "train" if number >= 3 else "test"
        rows += [f"images/class{number:02d}/{i}.png,class{number:02d},{side}" for i in range(8)]
    table = root / "list.csv"
    table.write_text("\n".join(rows))
    given = ["data.name=csv", f"data.root={table}", "data.split=given", "budget.epochs=1"]
    plan = read_experiment(DEMO, words(root, *given, "protocol.selection=last")).experiment
    here = Runtime(torch.device("cpu"))
    run_training(plan, RunFolder(root / "given"), lambda epoch: None, here, False)
    export(root / "given", root / "given_model")
    seen = "some of these classes were trained on"
    data = ["data.name=csv", f"data.root={table}"]
    for folder in (root / "given", root / "given_model"):
        for split, expected in (("given", False), ("classes", True), ("all", True)):
            scores, _ = dmlray.evaluate(folder, [*data, f"data.split={split}"], display=None)
            assert (seen in scores.remarks) == expected, split
            assert scores.test_classes == (6 if split == "all" else 3)


def test_data_that_cannot_be_divided_like_the_training_are_others(root: Path) -> None:
    """A model of `data.split=given` on plain folders, and of plain folders on given ones."""
    both = root / "both"
    for side, classes in (("train", range(3)), ("test", range(6, 9))):
        for number in classes:
            shutil.copytree(root / f"images/class{number:02d}", both / side / f"c{number}")
    data = {"plain": root / "images", "given": both}
    here = Runtime(torch.device("cpu"))
    for name, other in (("plain", "given"), ("given", "plain")):
        split = f"data.split={'given' if name == 'given' else 'classes'}"
        own = [f"data.root={data[name]}", split, "budget.epochs=1", "protocol.selection=last"]
        plan = read_experiment(DEMO, words(root, *own)).experiment
        run_training(plan, RunFolder(root / f"on_{name}"), lambda epoch: None, here, False)
        split = f"data.split={'given' if other == 'given' else 'classes'}"
        on = ["data.name=folder", f"data.root={data[other]}", split]
        scores, _ = dmlray.evaluate(root / f"on_{name}", on, display=None)
        assert "some of these classes were trained on" not in scores.remarks


def test_another_protocol_has_a_file_of_its_own(trained: Path, root: Path) -> None:
    data = {"data.name": "folder", "data.root": str(root / "other"), "data.split": "all"}
    first, _ = dmlray.evaluate(trained, data, display=None)
    second, _ = dmlray.evaluate(trained, {**data, "protocol.recall_at": [3]}, display=None)
    kept = [read_scores(path) for path in trained.glob("evaluation_folder_all_*.json")]
    assert first in kept
    assert second in kept
    for name in ("selection", "fold"):
        with pytest.raises(dmlray.DmlrayError, match=f"protocol.{name}: is not of an evaluation"):
            dmlray.evaluate(trained, {**data, f"protocol.{name}": 0}, display=None)


def test_nothing_was_trained_on_by_a_backbone_alone(
    compared: dmlray.ZeroShotResult, root: Path
) -> None:
    data = {"data.name": "folder", "data.root": str(root / "images"), "data.split": "all"}
    run = compared.folder.path / compared.comparison.rows[0].run
    scores, _ = dmlray.evaluate(run, data, display=None)
    assert scores.remarks == []
    assert scores.trained_on == "nothing"


def test_the_rule_that_chose_the_epoch_is_none_of_an_evaluation(trained: Path) -> None:
    """The authors' rule needs test classes, and `data.split=all` leaves none."""
    settings = read_experiment(DEMO, ["protocol.selection=best_on_test"]).experiment.document()
    model: Any = SimpleNamespace(config=SimpleNamespace(settings=settings))
    plan = other_data(model, ["data.name=demo", "data.split=all", "protocol.nmi=true"])
    assert (plan.data.split, plan.protocol.nmi) == ("all", True)
    assert plan.protocol.recall_at == read_experiment(DEMO).experiment.protocol.recall_at


@pytest.mark.parametrize(
    ("folder", "given", "problem"),
    [
        ("model", [], "a model has no images of its own"),
        ("trained", ["data.root=x"], "data.name: is missing"),
        ("trained", ["data.name=folder", "seed=1"], "seed: is not of an evaluation"),
        ("model", ["data.name=demo", "data.transform.size=8"], "data.transform.size: is not of an"),
        ("model", ["data.name=demo", "data.batch_size=4"], "data.batch_size: is not of an"),
        ("trained", ["data.name=folder", "data.root=no_such"], "no_such"),
        ("trained", ["data.name=cup"], "unknown data set"),
        ("images", ["data.name=demo"], "is neither a run nor a model"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    trained: Path, root: Path, folder: str, given: list[str], problem: str
) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(root / folder), *given])
    assert result.exit_code == 2
    assert problem in result.output
    assert "Traceback" not in result.output


def test_without_test_classes_there_is_nothing_to_project(trained: Path, root: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(root / "deployed"), "--projector"])
    assert result.exit_code == 2
    assert "has no test images: no test classes, as all classes train" in result.output
    assert not (root / "deployed" / "projector").exists()
