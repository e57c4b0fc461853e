"""Two workers that share each batch take the steps that one takes alone, whatever the method."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.multiprocessing import spawn

from dmlray import methods
from dmlray.errors import ConfigError
from dmlray.learn import journal
from dmlray.learn.job import job
from dmlray.learn.scores import read_scores
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder
from tests.learn.workers import gather, work
from tests.toys import draw_images, toy_words

pytestmark = pytest.mark.slow

# Plain steps: Adam divides by what it has seen and so makes much of the last bit of a small number.
COMMON = [
    "optimizer.name=sgd", "optimizer.lr=1e-3", "budget.epochs=2", "data.batch_size=12",
    "backbone.batchnorm=frozen", "method.head_lr_factor=1", "data.transform.flip=0.5",
]  # fmt: skip
OTHERS = {
    "dcml diva": ("dcml", ["method.mode=diva", "method.rho=10", "method.queue_size=16"]),
    "dcml paper": ("dcml", ["method.mode=paper"]),
    "idml live": ("idml", ["method.metric=live"]),
    "idml pairs": ("idml", ["method.loss=contrastive"]),
    "margin triplet": ("margin", ["method.loss=triplet", "method.sampling=hard"]),
    # No warm-up: principal directions of 24 images hang on the last bit of each feature.
    "validation": (
        "proxy_anchor",
        ["protocol.selection=validation", "protocol.folds=2", "budget.head_warmup_steps=0"],
    ),
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Experiment]:
    # An odd number of unseen images: the workers' shares of the evaluation are not equal.
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    (images / "class11" / "0.png").unlink()
    cases = {name: (name, list[str]()) for name in methods.names()} | OTHERS
    return {
        case: read_experiment(
            Path(f"experiments/{name}_demo.yaml"), [*toy_words(images), *_known(name), *words]
        ).experiment
        for case, (name, words) in cases.items()
    }


def _known(method: str) -> list[str]:
    """Of the common settings those that the method has."""
    knobs = methods.load(method).Config.model_fields
    return [w for w in COMMON if not w.startswith("method.") or w[7:].split("=")[0] in knobs]


@pytest.fixture(scope="module")
def runs(plans: dict[str, Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every plan by one process in `alone` and by two in `shared`."""
    root = tmp_path_factory.mktemp("runs")
    (root / "shared").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        for name, plan in plans.items():
            folder = RunFolder(root / "alone" / name)
            job(plan, folder, lambda epoch: None, Place(torch.device("cpu")))
        spawn(work, (2, plans, root / "shared"), nprocs=2)
    return root


def state(folder: RunFolder) -> dict[str, Tensor]:
    learner: dict[str, Tensor] = torch.load(folder.last_checkpoint, weights_only=True)["learner"]
    return learner


@pytest.mark.parametrize("case", [*methods.names(), *OTHERS])
def test_two_workers_take_the_steps_of_one(runs: Path, case: str) -> None:
    alone, shared = (
        state(RunFolder(runs / "alone" / case)),
        state(RunFolder(runs / "shared" / case)),
    )
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("case", [*methods.names(), *OTHERS])
def test_two_workers_tell_the_story_of_one(runs: Path, case: str) -> None:
    alone, shared = RunFolder(runs / "alone" / case), RunFolder(runs / "shared" / case)
    for one, two in zip(journal.read(alone.metrics), journal.read(shared.metrics), strict=True):
        assert one.keys() == two.keys()
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    np.testing.assert_allclose(np.load(shared.embeddings), np.load(alone.embeddings), atol=1e-5)
    assert read_scores(shared.scores).metrics.keys() == read_scores(alone.scores).metrics.keys()


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget\.workers 3 do not share a batch of 64 evenly"):
        read_experiment(Path("experiments/proxy_anchor_demo.yaml"), ["budget.workers=3"])


def test_workers_gather_what_each_of_them_gives(tmp_path: Path) -> None:
    spawn(gather, (2, tmp_path), nprocs=2)
    expected = "[[{'loss': 0.30000000000000004, 'recall': nan}], {'failure': 'Größe: \\x1b'}]"
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [expected, expected]
