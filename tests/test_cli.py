"""Every mistake a user can type: one clear sentence, exit status 2, nothing written."""

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from dmlray.api.run_setup import prepare
from dmlray.cli import main
from dmlray.learn.preflight import preflight
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble, cross_validation
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.scores import protocol_line
from tests.toy_data import draw_images, toy_words

SEARCH = ["searches/proxy_anchor_demo.yaml"]
TRAIN = ["train", "experiments/proxy_anchor_demo.yaml"]
OPEN = "{method: {name: proxy_anchor}, data: {transform: {crop: random}}}"  # number of folds


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("toys") / "images")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))


def run(*words: str) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert "Traceback" not in result.output
    return result


def refused(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert not Path("runs").exists()
    return result.output


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["method.alpah=3"], "method.alpah: unknown key. Did you mean alpha?"),
        (["optimizer.lr=fast"], "optimizer.lr: 'fast' is not allowed. Allowed: a number in (0, 1]"),
        (["budget.epochs=-1"], "budget.epochs: -1 is not allowed. Allowed: a whole number in [0,"),
        (["method.name=proxy"], "unknown method 'proxy'"),
        (["data.name=cup"], "unknown data set 'cup'. Allowed: cars, csv, cub, demo"),
        (["data.root=nowhere"], "nowhere"),
        (["backbone.name=resnet5O"], "unknown backbone 'resnet5O'. Did you mean resnet50?"),
        (["backbone.weights=none.pth"], "no such file"),
        (["data.batch_size=10", "data.images_per_class=4"], "is not divisible by"),
        (["data.batch_size=64"], "need 16 classes, but there are 6. Allowed: at most 24"),
        (["data.split=given"], "train: no such folder"),
        (["data.name=demo", "data.split=given"], "given is not for demo"),
        (["backbone.name=bn_inception", "data.transform.size=112"], "data.transform.size"),
        (["protocol.selection=validation", "protocol.folds=7"], "7 folds of 6 classes"),
        (["novalue"], "'novalue' is not allowed. Allowed: key=value"),
    ],
)
def test_a_mistake_in_an_override_is_told(images: Path, extra: list[str], complaint: str) -> None:
    assert complaint in refused(*TRAIN, *toy_words(images), *extra)


def test_a_missing_file_is_told() -> None:
    assert "no such file" in refused("train", "experiments/nothing.yaml")
    assert "EXPERIMENT: is missing. Allowed: a YAML file" in refused("train")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(*TRAIN, "data.name=folder", "data.root=empty")


def test_an_unreadable_image_is_named(images: Path, tmp_path: Path) -> None:
    broken = draw_images(tmp_path / "broken")
    (broken / "class03" / "5.png").write_bytes(b"no image")
    assert "class03/5.png" in refused(*TRAIN, *toy_words(broken))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method", "dremel"], "unknown method 'dremel'. Did you mean dreml?"),
        ([], "--experiment: is missing. Allowed: a file, or a --method"),
        (["--method", "dreml", "--ensemble-size", "0"], "0 is not allowed. Allowed: at least 1"),
        (["--method", "dreml", "--vary", "luck"], "'luck' is not allowed. Allowed: meta_classes"),
        (["--method", "proxy_anchor", "--vary", "meta_classes"], "has no meta-classes"),
        (["--method", "proxy_anchor", "--vary", "fold"], "holds out no fold"),
        (["--method", "dreml", "--vary", "settings"], "settings of 1 experiments"),
        (["--method", "dreml", "--members-per-gpu", "0"], "--members-per-gpu"),
        (["--resume", "nowhere"], "nowhere: is not a run folder"),
    ],
)
def test_a_mistake_of_an_ensemble_is_told(words: list[str], complaint: str) -> None:
    assert complaint in refused("ensemble", *words)


def test_an_ensemble_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    plan = Ensemble(read_experiment(Path("experiments/dreml_demo.yaml")).experiment, 3, "seed")
    plan.write(tmp_path / "run" / "ensemble.yaml")
    go_on = ["ensemble", "--resume", "run"]
    said = refused(*go_on, "--ensemble-size", "4", "optimizer.lr=0.5")
    assert "run: was begun with experiment.optimizer.lr 0.0003, not 0.5, size 3, not 4." in said
    assert "0 is not allowed" in refused(*go_on, "--ensemble-size", "0")
    assert "vary seed, not meta_classes" in refused(*go_on, "--vary", "meta_classes")
    other = refused(*go_on, "--experiment", "experiments/proxy_anchor_demo.yaml")
    assert "method.alpha None, not 32.0" in other
    assert "more. Allowed: the settings" in other


def test_a_mistake_of_a_merge_is_told() -> None:
    assert "names no run" in refused("merge")
    assert "nowhere: is not a run folder" in refused("merge", "nowhere")
    assert "'a,b' is not allowed" in refused("merge", "nowhere", "--weights", "a,b")


def test_a_mistake_of_a_search_is_told(images: Path) -> None:
    search = ["tune", "searches/proxy_anchor_demo.yaml", *toy_words(images)]
    assert "Did you mean trials?" in refused(*search, "trails=3")
    assert "7 folds of 6 classes" in refused(*search, "protocol.folds=7")


@pytest.mark.parametrize("command", ["cv", "repeat", "plan"])
def test_a_mistake_is_told_whoever_trains(images: Path, command: str) -> None:
    words = [command, TRAIN[1], *toy_words(images)]
    assert "method.alpah: unknown key. Did you mean alpha?" in refused(*words, "method.alpah=3")
    assert "need 16 classes, but there are" in refused(*words, "data.batch_size=64")
    assert "no such file" in refused(command, "experiments/nothing.yaml")


def test_a_mistake_of_an_average_is_told(images: Path, tmp_path: Path) -> None:
    assert "7 folds of 6 classes" in refused(
        "cv", *TRAIN[1:], *toy_words(images), "protocol.folds=7"
    )
    said = refused("repeat", *TRAIN[1:], *toy_words(images), "--repeats", "0")
    assert "--repeats: 0 is not allowed. Allowed: at least 1" in said
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "repeat.yaml").write_text("{}")
    said = refused("cv", "--resume", "run")
    assert "run: is no cross validation: it holds repeat.yaml" in said


@pytest.mark.parametrize(
    "command", [["cv", TRAIN[1]], ["tune", *SEARCH], ["plan", *SEARCH], ["plan", "mine.yaml"],
                ["ensemble", "--vary", "fold", "--experiment", TRAIN[1]], ["repeat", TRAIN[1]],
                ["ensemble", "--experiment", TRAIN[1]], ["train", TRAIN[1]]],
)  # fmt: skip
def test_folds_that_cannot_be_scored_are_refused_whoever_trains(
    images: Path, command: list[str]
) -> None:
    """6 training classes in 6 folds hold out one each; members of an ensemble hold out some."""
    Path("mine.yaml").write_text(OPEN)
    words = [*toy_words(images), "protocol.folds=6", "protocol.selection=validation"]
    said = refused(*command, *words)
    assert "protocol.folds: 6 folds of 6 classes (kfold): fold 0 has one class ('class00')" in said
    assert "Allowed: 2 or 3 folds" in said


def test_a_plan_comes_back_with_the_folds_that_its_classes_make(
    images: Path, tmp_path: Path
) -> None:
    Path("mine.yaml").write_text(OPEN)
    plan = read_experiment(Path("mine.yaml"), toy_words(images)).experiment
    settled, _ = prepare(plan, Display(), folds=True)
    assert (settled.protocol.folds, cross_validation(settled).size) == (3, 3)
    asked = read_experiment(Path("mine.yaml"), [*toy_words(images), "protocol.folds=2"])
    assert prepare(asked.experiment, Display())[0] == asked.experiment


def test_repeats_without_test_classes_are_refused_before_anything_runs(images: Path) -> None:
    rows = [f"{file},{file.parent.name},train" for file in sorted(images.glob("*/*.png"))]
    Path("mine.csv").write_text("\n".join(["path,label,split", *rows]))
    data = ["data.name=csv", "data.root=mine.csv", "data.split=given"]
    words = [*toy_words(images), *data]
    for command in (["repeat", TRAIN[1]], ["cv", TRAIN[1]], ["tune", *SEARCH, "repeats=2"]):
        assert "12 classes to train and 0 to test" in refused(*command, *words)


def test_a_plan_tells_every_mistake_of_a_search_at_once(images: Path) -> None:
    said = refused("plan", *SEARCH, *toy_words(images), "trials=0", "repeats=-1")
    assert "trials: 0 is not allowed" in said
    assert "repeats: -1 is not allowed" in said


def test_a_run_of_another_kind_cannot_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "search.yaml").write_text("{}")
    assert "run: is no experiment: it holds search.yaml" in refused("train", "--resume", "run")
    assert "takes no KEY=VALUE" in refused("train", "--resume", "run", "seed=1")


def test_a_checkpoint_of_another_model_is_told(images: Path, tmp_path: Path) -> None:
    plan = read_experiment(Path(TRAIN[1]), toy_words(images, 1)).experiment
    folder = RunFolder(tmp_path / "run")
    run_training(plan, folder, lambda epoch: None, Runtime(torch.device("cpu")))
    assert run("evaluate", "run").exit_code == 0
    other = read_experiment(Path(TRAIN[1]), [*toy_words(images, 1), "method.dim=7"]).experiment
    write_experiment(folder.plan("experiment"), other)
    result = run("evaluate", "run")
    assert result.exit_code == 2
    assert "is a checkpoint of another model: head.weight is (128, 96), exp" in result.output
    folder.last_checkpoint.write_bytes(b"torn")
    assert "is damaged" in run("evaluate", "run").output


def test_show_says_who_said_each_value() -> None:
    said = run("show", "experiments/dreml_demo.yaml", "seed=7").output
    assert "command line" in next(line for line in said.splitlines() if line.startswith("seed"))
    assert "line " in next(line for line in said.splitlines() if line.startswith("backbone.name"))
    assert "default" in next(
        line for line in said.splitlines() if line.startswith("budget.workers")
    )


def test_lists_name_methods_and_data_sets() -> None:
    assert "proxy_anchor" in run("methods").output
    assert "demo" in run("data", "list").output


def test_help_needs_no_heavy_import() -> None:
    import subprocess
    import sys

    code = "import sys, dmlray.cli; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_data_are_unpacked_found_and_verified(images: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "mine"), "gztar", images.parent, "images")
    result = run("data", "prepare", "folder", "--from", "mine.tar.gz", "--root", "unpacked")
    assert (result.exit_code, "1 sub-folders" in result.output) == (2, True)  # one level too high
    assert run("data", "prepare", "folder", "--root", "unpacked/images").exit_code == 0
    result = run("data", "verify", "folder", "--root", "unpacked/images")
    assert result.exit_code == 0
    assert "classes      train 6 / test 6" in result.output
    assert "\nwell" in result.output
    (Path("unpacked/images") / "class03" / "1.png").write_bytes(b"not an image")
    result = run("data", "verify", "folder", "--root", "unpacked/images")
    assert result.exit_code == 1
    reason = "its content has no known image format"
    assert f"unreadable: class03/1.png: {reason}" in result.output
    most = run("data", "verify", "folder", "--root", "unpacked/images", "--max-megapixels", "0.001")
    assert "class00/0.png: has more than 1,000 pixels (32 x 32)" in most.output
    assert "unreadable: 76 more" in most.output


@pytest.mark.parametrize("command", ["verify", "prepare"])
def test_a_given_split_is_checked_and_remarks_are_notes(images: Path, command: str) -> None:
    lines = [
        f"{path},{path.parent.name},{'test' if path.parent.name > 'class05' else 'train'},"
        for path in sorted(images.glob("*/*.png"))
    ]
    Path("images.csv").write_text("\n".join(["path,label,split,is_query", *lines]))
    shutil.copytree(images, "sides/train")
    Path("sides/test").mkdir()
    for number in range(6, 12):
        shutil.move(f"sides/train/class{number:02d}", "sides/test")
    Path("sides/train/class00/notes.txt").touch()
    for name, root in (("csv", "images.csv"), ("folder", "sides")):
        result = run("data", command, name, "--root", root, "--split=given")
        assert result.exit_code == 0, result.output
        assert "\nnote: " in result.output
        assert "problem:" not in result.output
    result = run("data", command, "csv", "--root", "images.csv")
    assert result.exit_code == 0
    assert "data.split=given" in result.output
    assert "--split" in refused("data", command, "folder", "--root", "sides")
    assert "given is not for demo" in refused("data", command, "demo", "--split", "given")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["prepare", "cub", "--from", "none.tgz"], "--root: is missing"),
        (["prepare", "cub", "--from", "none.tgz", "--root", "data"], "none.tgz: no such file"),
        (["prepare", "cars", "--download", "--root", "data"], "unavailable since 2023"),
        (["prepare", "cub"], "Set data.root"),
        (["verify", "cub", "--root", "nowhere"], "no such folder"),
        (["verify", "cup"], "unknown data set 'cup'"),
    ],
)
def test_a_mistake_about_data_is_told(words: list[str], complaint: str) -> None:
    assert complaint in refused("data", *words)


def test_a_score_of_known_classes_says_so(images: Path, tmp_path: Path) -> None:
    for side in ("train", "test"):
        for number in range(6):
            (tmp_path / "both" / side).mkdir(parents=True, exist_ok=True)
            source = images / f"class{number + 6 * (side == 'test'):02d}"
            shutil.copytree(source, tmp_path / "both" / side / f"class{number}")
    words = [*toy_words(tmp_path / "both", 1), "data.split=given", "protocol.recall_at=[1, 1000]"]
    plan = read_experiment(Path(__file__).parent.parent / TRAIN[1], words).experiment
    preflight(plan)
    scores = run_training(
        plan, RunFolder(tmp_path / "run"), lambda epoch: None, Runtime(torch.device("cpu"))
    )
    assert "NOTE: closed set: 6 of 6 test classes also train" in protocol_line(scores)
    assert "recall_at_1000" not in scores.metrics
    assert scores.test_classes == 6


def test_caches_are_listed_and_cleared(images: Path, tmp_path: Path) -> None:
    plan = read_experiment(Path(__file__).parent.parent / TRAIN[1], toy_words(images)).experiment
    preflight(plan)
    listed = run("data", "cache", "list")
    assert "96 images" in listed.output
    assert "2 caches" in listed.output
    assert "names no cache" in refused("data", "cache", "clear")
    assert "no cache 'cub'" in refused("data", "cache", "clear", "cub")
    assert "removed 0 caches" in run("data", "cache", "clear", "--unused-days", "1").output
    assert "36500" in refused("data", "cache", "clear", "--unused-days", "1000000")
    assert "removed 2 caches" in run("data", "cache", "clear", "folder").output
    assert "0 caches" in run("data", "cache", "list").output


def test_the_size_of_the_decoded_images_is_said_before_they_are_decoded(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_experiment(Path(__file__).parent.parent / TRAIN[1], toy_words(images)).experiment
    prepare(plan, Display())
    said = capsys.readouterr().err
    size = f"{96 * 32 * 32 * 3 / 1e6:.1f} MB"
    assert said.index(f"decoded images will take {size}") < said.index("decoding images: 96 to do")
    prepare(plan, Display())
    assert capsys.readouterr().err == ""  # they are there
