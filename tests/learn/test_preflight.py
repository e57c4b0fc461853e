"""Plans whose classes, folds or batches cannot work are refused before anything runs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch

from dmlray.data import folds
from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.learn import metrics_log
from dmlray.learn.class_split import load_dataset, with_folds
from dmlray.learn.cross_validation import mean_over_folds
from dmlray.learn.preflight import preflight
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))
Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Make classes of 4 images, or of 1 image for the numbers in `lone`."""
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))

    def drawn(classes: int, lone: tuple[int, ...] = ()) -> Path:
        root = draw_images(tmp_path / f"images{len(list(tmp_path.iterdir()))}", classes, 4)
        for number in lone:
            for image in list((root / f"class{number:02d}").iterdir())[1:]:
                image.unlink()
        return root

    return drawn


def plan_of(root: Path, *words: str, method: str = "proxy_anchor") -> Experiment:
    file = root.parent / "plan.yaml"
    file.write_text(f"method: {{name: {method}}}\n")
    small = [word for word in toy_words(root, 1) if "padding" not in word]
    given = ["data.batch_size=4", "protocol.selection=last", *words]
    return read_experiment(file, [*small, *given]).experiment


def refusal(plan: Experiment, in_folds: bool = False) -> str:
    with pytest.raises(DmlrayError) as caught:
        preflight(plan, in_folds)
    assert isinstance(caught.value, ConfigError | DataError)
    return str(caught.value)


@pytest.mark.parametrize("kind", get_args(folds.Kind))
@pytest.mark.parametrize("in_folds", [True, False])
@pytest.mark.parametrize(
    ("classes", "count", "allowed"),
    [(8, 4, "2 folds"), (8, 3, "2 folds"), (12, 4, "2 or 3 folds"), (16, 5, "2 to 4 folds")],
)
def test_folds_of_one_class_are_refused_with_the_numbers_that_do(
    draw: Draw, kind: str, in_folds: bool, classes: int, count: int, allowed: str
) -> None:
    """Where the classes do not divide, the last of `kfold` are the short ones."""
    fold = count - 1
    words = [f"protocol.split={kind}", f"protocol.folds={count}", f"protocol.fold={fold}"]
    plan = plan_of(draw(classes), "protocol.selection=validation", *words)
    message = refusal(plan, in_folds)
    assert message.startswith(f"protocol.folds: {count} folds of {classes // 2} classes ({kind}): ")
    assert "has one class ('class" in message
    assert message.endswith(f"Allowed: {allowed}")


def test_only_the_folds_that_are_held_out_matter(draw: Draw) -> None:
    root, words = draw(10), ["protocol.selection=validation", "protocol.folds=4"]
    preflight(plan_of(root, *words))  # fold 0 of 2, 1, 1 and 1 classes
    assert "fold 1 has one class" in refusal(plan_of(root, *words, "protocol.fold=1"))
    assert "fold 1 has one class" in refusal(plan_of(root, *words), in_folds=True)
    preflight(plan_of(root, "protocol.folds=4"))  # selection=last holds out nothing


@pytest.mark.parametrize(("classes", "taken"), [(7, 2), (8, 2), (11, 3), (14, 3), (15, 4), (24, 4)])
def test_a_number_of_folds_that_is_left_open_fits_the_classes(
    draw: Draw, caplog: pytest.LogCaptureFixture, classes: int, taken: int
) -> None:
    plan = plan_of(draw(classes), "protocol.selection=validation", "data.batch_size=2")
    fitted = with_folds(plan, preflight(plan))
    assert fitted.protocol.folds == taken
    message = [text for text in caplog.messages if text.startswith("protocol.folds: using")]
    assert len(message) == (taken < 4)


def test_too_few_classes_for_any_folds_are_refused(draw: Draw) -> None:
    message = refusal(plan_of(draw(6), "protocol.selection=validation"))
    assert "Allowed: no number of folds of these classes" in message
    preflight(plan_of(draw(6)))


def test_a_resolved_number_of_folds_is_written_and_scored(draw: Draw, tmp_path: Path) -> None:
    plan = plan_of(draw(8), "protocol.selection=validation")
    folder = RunFolder(tmp_path / "run")
    scores = run_training(plan, folder, lambda _: None, RUNTIME)
    assert scores.split == "all but fold 0 of 2 kfold folds"
    assert read_experiment(folder.plan("experiment")).experiment.protocol.folds == 2


def test_a_fold_that_fewer_folds_lack_is_refused(draw: Draw) -> None:
    plan = plan_of(draw(8), "protocol.selection=validation", "protocol.fold=3")
    assert refusal(plan) == (
        "protocol.fold: 3 does not exist: these classes make 2 folds. Allowed: 0 to 1"
    )


@pytest.mark.parametrize(
    ("classes", "problem"),
    [(2, "the training side has 1 class"), (3, "the test side has one class ('class02')")],
)
@pytest.mark.parametrize("in_folds", [True, False])
def test_one_class_is_refused(draw: Draw, classes: int, problem: str, in_folds: bool) -> None:
    message = refusal(plan_of(draw(classes)), in_folds)
    assert problem in message
    assert "Allowed: at least 2 classes on each side; the first half" in message


def test_a_given_split_with_one_class_is_refused(draw: Draw, tmp_path: Path) -> None:
    root = draw(4)
    for side, numbers in (("train", (0, 1, 2)), ("test", (3,))):
        for number in numbers:
            (tmp_path / "given" / side).mkdir(parents=True, exist_ok=True)
            shutil.copytree(
                root / f"class{number:02d}", tmp_path / "given" / side / f"class{number:02d}"
            )
    message = refusal(plan_of(tmp_path / "given", "data.split=given"))
    assert "the test side has one class ('class03')" in message
    assert "half" not in message


def test_a_fold_of_lone_images_is_refused_and_named(draw: Draw) -> None:
    root = draw(16, lone=(0, 1, 2))  # 8 train
    message = refusal(
        plan_of(root, "protocol.selection=validation", "protocol.folds=4"), in_folds=True
    )
    assert "fold 0 has one image of each class ('class00', 'class01')" in message
    assert message.endswith("Allowed: 2 folds")  # 3 folds: 0 to 2, alone as well
    fitted = plan_of(root, "protocol.selection=validation")
    assert with_folds(fitted, load_dataset(fitted)).protocol.folds == 2


def test_all_problems_of_folds_and_batches_are_listed(draw: Draw) -> None:
    words = ["protocol.folds=4", "data.batch_size=64", "data.images_per_class=4"]
    message = refusal(plan_of(draw(8), *words), in_folds=True)
    assert message.startswith("experiment: 2 problems\n  protocol.folds: 4 folds of 4 classes")
    assert "\n  data.batch_size: 64 images, 4 of each class, need 16 classes" in message


@pytest.mark.parametrize(
    "method", ["margin", "dcml", "idml method.loss=triplet", "pml", "pml method.loss=NCALoss"]
)
def test_lone_classes_are_refused_if_the_method_needs_pairs(draw: Draw, method: str) -> None:
    name, *words = method.split()
    plan = plan_of(draw(8, lone=(0, 1, 2, 3)), *words, method=name)
    message = refusal(plan)
    assert f"{name} needs two images of a class in a batch" in message
    assert "each of the 4 classes to train on has one image" in message


@pytest.mark.parametrize("method", ["proxy_anchor", "pml method.loss=ProxyNCALoss"])
def test_lone_classes_are_trained_if_the_method_has_proxies(draw: Draw, method: str) -> None:
    name, *words = method.split()
    preflight(plan_of(draw(8, lone=(0, 1, 2, 3)), *words, method=name))


@pytest.mark.parametrize(
    "words",
    [["data.batch_size=1", "backbone.batchnorm=frozen"], ["data.images_per_class=1"]],
)
def test_batches_that_never_hold_a_pair_are_refused(draw: Draw, words: list[str]) -> None:
    message = refusal(plan_of(draw(8), *words, method="margin"))
    assert "but 1 is too few. Allowed: " in message


def test_steps_without_pairs_are_counted_and_every_score_has_a_remark(
    draw: Draw, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = draw(8, lone=(0, 1, 2))
    plan = plan_of(root, "data.batch_size=2", method="margin")
    preflight(plan)
    [message] = [text for text in caplog.messages if "have no two images of a class" in text]
    scores = run_training(plan, RunFolder(tmp_path / "run"), lambda _: None, RUNTIME)
    [line] = metrics_log.read(RunFolder(tmp_path / "run").metrics)
    idle = line["steps_without_pairs"]
    assert 0 < idle <= 3
    assert f"{idle} of 3 steps of the first epoch" in message
    assert any("steps had no two images of a class" in remark for remark in scores.remarks)


def test_steps_that_all_have_pairs_are_not_mentioned(draw: Draw, tmp_path: Path) -> None:
    root = draw(8)
    for number, (words, method) in enumerate(
        [(["data.images_per_class=2"], "margin"), (["data.batch_size=2"], "proxy_anchor")]
    ):
        folder = RunFolder(tmp_path / str(number))
        scores = run_training(plan_of(root, *words, method=method), folder, lambda _: None, RUNTIME)
        assert "steps_without_pairs" not in metrics_log.read(folder.metrics)[0]
        assert scores.remarks == []


def test_folds_report_the_mean_of_their_steps_without_pairs() -> None:
    means = mean_over_folds(
        [{"map_at_r": 0.5}, {"map_at_r": 0.5, "steps_without_pairs": 3}], "map_at_r"
    )
    assert means["steps_without_pairs"] == 1.5


def test_a_score_that_one_fold_is_too_small_for_has_no_mean() -> None:
    """It is no 0: only counts are."""
    large = {"map_at_r": 0.5, "recall_at_8": 1.0, "precision_at_9": 0.2, "nmi": 0.3}
    means = mean_over_folds([large, {"map_at_r": 0.25}], "map_at_r")
    assert means.keys() == {"map_at_r", "map_at_r_std", "fold0/map_at_r", "fold1/map_at_r"}
    assert means["map_at_r"] == 0.375


def test_one_image_per_device_is_refused_where_batchnorm_gets_one_value(
    draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw(8)
    one = ["backbone.name=resnet18", "data.batch_size=1"]
    message = refusal(plan_of(root, *one))
    assert message.startswith("data.batch_size: one image per device is too few for BatchNorm")
    four = plan_of(root, one[0], "data.batch_size=4", "budget.workers=4")
    preflight(four)  # GPUs of a cluster normalise a batch together, whatever this machine has
    four_processors = Runtime(torch.device("cpu"), group=ProcessGroup(0, 4))
    monkeypatch.setattr(ProcessGroup, "broadcast_bytes", lambda group, read: read())
    monkeypatch.setattr(ProcessGroup, "gather_json", lambda group, value: group.size * [value])
    with pytest.raises(ConfigError, match="one image per device"):
        run_training(four, RunFolder(tmp_path / "run"), lambda epoch: None, four_processors)
    assert not (tmp_path / "run").exists()
    for mended in ("backbone.batchnorm=frozen", "data.transform.size=64", "data.batch_size=2"):
        preflight(plan_of(root, *one, mended))


def test_more_workers_than_images_of_the_only_batch_are_refused(draw: Draw) -> None:
    preflight(plan_of(draw(8), "data.batch_size=30", "budget.workers=3"))
    message = refusal(plan_of(draw(8), "data.batch_size=30", "budget.workers=17"))
    assert message == (
        "budget.workers: 17 are more than the 16 images of the only batch. Allowed: at most 16"
    )


FIXED = ["data.transform.crop=center", "data.transform.flip=0", "data.images_per_class=2"]


@pytest.mark.parametrize(
    ("loss", "words", "sentence"),
    [
        ("SmoothAPLoss", ["data.batch_size=5"], "Allowed: data.images_per_class=2 with data."),
        ("SmoothAPLoss", ["data.batch_size=5"], "achieve this using the samplers.MPerClassSamp"),
        ("SmoothAPLoss", ["data.batch_size=6"], "Allowed: data.images_per_class=2, or another"),
        ("NCALoss", ["data.batch_size=2"], "a batch without two images of a class: the loss is"),
        ("HistogramLoss", FIXED, "equal images of a class: index 101 is out of bounds"),
        ("TupletMarginLoss", FIXED, "equal images of a class: the gradient of the loss is not"),
    ],
)
def test_a_library_loss_that_fails_on_the_plans_batches_is_refused(
    draw: Draw, loss: str, words: list[str], sentence: str
) -> None:
    """Class 0 has one image, which a batch of two images of each class holds twice."""
    message = refusal(plan_of(draw(8, lone=(0,)), f"method.loss={loss}", *words, method="pml"))
    assert message.startswith(f"method.loss: {loss} fails on ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("SmoothAPLoss", ["data.images_per_class=2"]),
        ("NCALoss", ["data.images_per_class=2"]),
        ("TupletMarginLoss", ["data.images_per_class=2"]),
        ("TupletMarginLoss", ["data.batch_size=4"]),
    ],
)
def test_the_advice_of_the_messages_is_accepted(draw: Draw, loss: str, words: list[str]) -> None:
    preflight(plan_of(draw(8, lone=(0,)), f"method.loss={loss}", *words, method="pml"))


def test_batches_of_categories_need_one_for_each_class(draw: Draw) -> None:
    words = ["data.images_per_class=2", "data.categories=1"]
    root = draw(8)
    assert refusal(plan_of(root, *words)).startswith(
        "data.categories: the images have no categories"
    )
    table = root / "images.csv"
    rows = [(file, file.parent.name) for file in sorted(root.glob("*/*.png"))]

    def listed(category: Callable[[str, int], str]) -> Experiment:
        lines = [f"{file},{name},{category(name, n)}" for n, (file, name) in enumerate(rows)]
        table.write_text("\n".join(["path,label,category", *lines]))
        return plan_of(root, *words, "data.name=csv", f"data.root={table}", method="pml")

    preflight(listed(lambda name, number: "odd" if name[-1] in "13579" else "even"))
    message = refusal(listed(lambda name, number: f"{number % 2}"))
    assert message.count("data.categories") == 1, "also where a loss is tried on batches"
    assert "2 categories ('0', '1')" in message


def test_categories_are_of_batches_of_whole_classes(draw: Draw) -> None:
    root = draw(8)
    for words in (["data.images_per_class=null"], ["data.replacement=images"]):
        with pytest.raises(ConfigError, match="categories needs images_per_class"):
            plan_of(root, "data.images_per_class=2", "data.categories=1", *words)
