"""Points of a search that would fail are found before anything is trained."""

from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.learn.preflight import preflight
from dmlray.learn.space_preflight import preflight_space
from dmlray.plans.search import read_search
from tests.toy_data import draw_images, toy_words


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("toys") / "images", classes=8, images=6)


def check(
    images: Path, tmp_path: Path, space: str, *words: str, method: str = "proxy_anchor"
) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        f"experiment: experiments/{method}_demo.yaml\nuse_method_space: false\nspace:\n{space}"
    )
    search = read_search(path, [*toy_words(images), "folds=2", "data.batch_size=8", *words])
    dataset = preflight(search.experiment, folds=True)
    preflight_space(search, dataset)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        (
            "  backbone.name: {choices: [timm/test_resnet, timm/test_resent]}\n",
            "backbone.name = timm/test_resent: unknown backbone .* Did you mean test_resnet",
        ),
        (
            "  backbone.pooling: {choices: [avg, cls]}\n",
            "backbone.pooling = cls: cls needs a network with a class token",
        ),
        (
            "  backbone.weights: {choices: [none, nowhere.pt]}\n",
            "backbone.weights = nowhere.pt: .*nowhere.pt",
        ),
        (
            "  data.batch_size: {choices: [8, 4096]}\n",
            "data.batch_size = 4096: there are 24 images to train on",
        ),
        ("  data.batch_size: {low: 4, high: 64}\n", "data.batch_size = 64: there are 24 images"),
        (
            "  data.images_per_class: {choices: [2, 4]}\n  data.batch_size: {choices: [4, 8]}\n",
            "data.batch_size = 8, data.images_per_class = 2: .*need 4 classes, but there are 2",
        ),
        (
            "  backbone.name: {choices: [timm/test_resnet, x], when: {method.dim: 64}}\n"
            "  method.dim: {choices: [128, 64]}\n",
            "method.dim = 64, backbone.name = x: .*unknown backbone",
        ),
        (
            "  data.batch_size: {choices: [8, 99], when: {method.dim: 64}}\n"
            "  method.dim: {choices: [128, 64]}\n",
            "method.dim = 64, data.batch_size = 99: there are 24 images to train on",
        ),
    ],
)
def test_a_choice_is_checked_like_the_value_of_an_experiment(
    space: str, complaint: str, images: Path, tmp_path: Path
) -> None:
    words = [] if "images_per_class" in space else ["data.images_per_class=null"]
    with pytest.raises(ConfigError, match=complaint):
        check(images, tmp_path, space, *words)


def test_heads_that_do_not_fit_the_network_are_found(images: Path, tmp_path: Path) -> None:
    space = "  method.branches: {choices: [4, 5]}\n"
    words = ["method.branches=4", "method.dim=20", "method.branch_input=chunk"]
    with pytest.raises(ConfigError, match=r"method\.branches = 5: .*divide"):
        check(images, tmp_path, space, *words, method="drml")


def test_a_valid_space_passes(images: Path, tmp_path: Path) -> None:
    space = (
        "  backbone.pooling: {choices: [avg, max]}\n  method.dim: {low: 4, high: 128}\n"
        "  data.batch_size: {choices: [4, 8]}\n  optimizer.lr: {low: 1.0e-5, high: 1.0e-2}\n"
    )
    check(images, tmp_path, space)


@pytest.mark.parametrize(
    "second", ["recall_at_16", "precision_at_12", "mean_average_precision_at_12"]
)
def test_every_metric_that_is_sought_must_fit_into_every_fold(
    images: Path, tmp_path: Path, second: str
) -> None:
    """A fold has two classes of six images, so that a query is compared with 11."""
    space = "  method.margin: {low: 0.0, high: 0.3}\n"
    with pytest.raises(ConfigError, match=f"metric: {second} needs more than the 11 images"):
        check(images, tmp_path, space, f"metric=[map_at_r, {second}, seconds]")
    check(images, tmp_path, space, "metric=[map_at_r, recall_at_11, embedding_size]")
