"""Workers that share each batch take the same steps as one worker, for every method.

There are three workers, so that their shares of eight images are not equal; all but the main one
use another disk without the run folder.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dmlray import methods
from dmlray.data.folds import train_subset
from dmlray.errors import ConfigError
from dmlray.learn import metrics_log
from dmlray.learn.class_split import load_dataset
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.teacher import write_vectors
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.learn.workers import RESUMED, gather, work
from tests.processes import run_processes
from tests.toy_data import draw_images, toy_words

pytestmark = pytest.mark.slow

# SGD: Adam divides by past gradients, which amplifies rounding of small ones.
COMMON = [
    "optimizer.name=sgd", "optimizer.lr=1e-3", "budget.epochs=2", "data.batch_size=8",
    "backbone.batchnorm=frozen", "method.head_lr_factor=1", "data.transform.flip=0.5",
    "budget.head_warmup_steps=0",  # principal directions of 24 images depend on rounding
]  # fmt: skip
WORKERS = 3
OTHERS = {
    "dcml diva": ("dcml", ["method.mode=diva", "method.rho=10", "method.queue_size=16"]),
    "dcml paper": ("dcml", ["method.mode=paper"]),
    "idml live": ("idml", ["method.metric=live"]),
    "idml pairs": ("idml", ["method.loss=contrastive"]),
    "margin triplet": ("margin", ["method.loss=triplet", "method.sampling=hard"]),
    "head warm-up": ("dreml", ["budget.head_warmup_steps=5"]),
    "validation": (
        "proxy_anchor",
        ["protocol.selection=validation", "protocol.folds=2", "protocol.nmi=true"],
    ),
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Experiment]:
    # A number of test images that three workers do not share evenly either.
    images = draw_images(tmp_path_factory.mktemp("toys") / "images", images=4)
    (images / "class11" / "0.png").unlink()
    cases = {name: (name, list[str]()) for name in methods.names()} | OTHERS
    return {
        case: read_experiment(
            Path(f"experiments/{name}_demo.yaml"), [*toy_words(images), *_known(name), *words]
        ).experiment
        for case, (name, words) in cases.items()
    }


def _known(method: str) -> list[str]:
    """Return the common settings that the method has."""
    settings = methods.load(method).Config.model_fields
    return [w for w in COMMON if not w.startswith("method.") or w[7:].split("=")[0] in settings]


@pytest.fixture(scope="module")
def runs(plans: dict[str, Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every plan with one process in `alone` and with three in `shared`."""
    root = tmp_path_factory.mktemp("runs")
    (root / "shared").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        for name, plan in plans.items():
            folder = RunFolder(root / "alone" / name)
            if methods.has_teacher(plan.method.config):
                for run in (folder, RunFolder(root / "shared" / name)):
                    _teach(plan, run)
            here = Runtime(torch.device("cpu"))
            run_training(plan, folder, lambda epoch: None, here, name == RESUMED)
        run_processes(WORKERS, work, WORKERS, plans, root / "shared")
    return root


def _teach(plan: Experiment, folder: RunFolder) -> None:
    dataset = load_dataset(plan)
    generator = torch.Generator().manual_seed(0)
    folder.make()
    rows = torch.randn(len(train_subset(dataset)), 16, generator=generator)
    write_vectors(folder.teacher, rows, dataset, "a teacher")


def state(folder: RunFolder) -> dict[str, Tensor]:
    learner: dict[str, Tensor] = torch.load(folder.last_checkpoint, weights_only=True)["learner"]
    return learner


@pytest.mark.parametrize("case", [*methods.names(), *OTHERS])
def test_workers_take_the_same_steps_as_one(runs: Path, case: str) -> None:
    alone, shared = (
        state(RunFolder(runs / "alone" / case)),
        state(RunFolder(runs / "shared" / case)),
    )
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("case", [*methods.names(), *OTHERS])
def test_workers_have_the_same_metrics_and_embeddings_as_one(runs: Path, case: str) -> None:
    alone, shared = RunFolder(runs / "alone" / case), RunFolder(runs / "shared" / case)
    for one, two in zip(
        metrics_log.read(alone.metrics), metrics_log.read(shared.metrics), strict=True
    ):
        assert one.keys() == two.keys()
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    np.testing.assert_allclose(np.load(shared.embeddings), np.load(alone.embeddings), atol=1e-5)
    assert read_scores(shared.scores).metrics.keys() == read_scores(alone.scores).metrics.keys()


@pytest.mark.parametrize("batch", [180, 120, 100, 64, 17, 16])
@pytest.mark.parametrize("workers", [8, 16])
def test_published_batches_are_shared_among_any_number_of_workers(batch: int, workers: int) -> None:
    words = [f"budget.workers={workers}", f"data.batch_size={batch}"]
    read_experiment(Path("experiments/margin_demo.yaml"), [*words, "data.images_per_class=null"])
    rows = np.arange(batch)
    shares = [rows[ProcessGroup(rank, workers).local_slice(batch)] for rank in range(workers)]
    np.testing.assert_array_equal(np.concatenate(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_workers_than_images_of_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget\.workers 65 are more than the 64 images"):
        read_experiment(Path("experiments/proxy_anchor_demo.yaml"), ["budget.workers=65"])


def test_a_resumed_run_depends_on_the_main_workers_files(runs: Path) -> None:
    messages = [(runs / "shared" / f"resumed{rank}.txt").read_text() for rank in range(WORKERS)]
    assert messages == WORKERS * ["epochs [1, 2], True"]


def test_a_damaged_checkpoint_ends_all_workers_with_one_message(runs: Path) -> None:
    messages = [(runs / "shared" / f"damaged{rank}.txt").read_text() for rank in range(WORKERS)]
    assert len(messages) == WORKERS
    for text in messages:
        kind, _, sentence = text.partition(" ")
        assert kind in ("DamagedCheckpointError", "DataError")
        assert "checkpoints/last.pt: is not a checkpoint of dmlray or is damaged" in sentence


def test_workers_that_see_different_images_end_with_one_message(runs: Path) -> None:
    messages = {(runs / "shared" / f"images{rank}.txt").read_text() for rank in range(WORKERS)}
    assert len(messages) == 1
    assert messages.pop().startswith(": the nodes of this training find different images there (")


def test_all_workers_name_the_cause_that_one_of_them_has(runs: Path) -> None:
    messages = {(runs / "shared" / f"diverged{rank}.txt").read_text() for rank in range(WORKERS)}
    assert len(messages) == 1
    assert "from step 2 of 3 on, like the network's outputs" in messages.pop()


def test_workers_gather_json(tmp_path: Path) -> None:
    run_processes(2, gather, 2, tmp_path)
    expected = "[[{'loss': 0.30000000000000004, 'recall': nan}], {'failure': 'Größe: \\x1b'}]"
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [expected, expected]
