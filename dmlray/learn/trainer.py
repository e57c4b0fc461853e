"""One learner on some classes: from a plan to epochs, resumable after each."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from dmlray import backbones, methods
from dmlray.backbones import Trunk
from dmlray.data import folds
from dmlray.data.batches.loader import Feed
from dmlray.data.cache.broken import leave_out
from dmlray.data.cache.eval_cache import open_eval_cache
from dmlray.data.cache.image_cache import Cache, find_broken, open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import registry
from dmlray.data.datasets.train_test import everything
from dmlray.data.folds import Subset
from dmlray.errors import ConfigError, DataError, RunError
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import checkpoint, metrics_log
from dmlray.learn.checkpoint import Progress
from dmlray.learn.checkpoint_writer import CheckpointWriter
from dmlray.learn.compiler import check_compiler
from dmlray.learn.device import default_device, loader_threads
from dmlray.learn.embed import embed
from dmlray.learn.head_warmup import warm_up_heads
from dmlray.learn.loop import Epoch, fit
from dmlray.learn.optimizer import build
from dmlray.learn.precision import Arithmetic, arithmetic
from dmlray.learn.process_group import ALONE, Team
from dmlray.learn.random_layers import keep_generators_equal
from dmlray.learn.retrieval_task import task_of
from dmlray.methods import Learner
from dmlray.plans.experiment import FOLDS, Experiment
from dmlray.plans.run_folder import RunFolder

WITHOUT_PAIRS = "steps_without_pairs"  # metric of an epoch, where there are any


@dataclass(frozen=True)
class Place:
    """Where a learner computes: not part of any plan."""

    device: torch.device
    threads: int = 0  # that prepare batches ahead; 0 prepares them in step
    team: Team = ALONE  # whose workers share each batch


def whole_process() -> Place:
    """This process's device, with all CPU cores that torch uses here."""
    device = default_device()
    return Place(device, loader_threads(device, torch.get_num_threads()))


@dataclass(frozen=True)
class Task:
    """What is learned, and what each epoch is scored on (None: on nothing)."""

    dataset: Dataset
    train: Subset
    validation: Subset | None


def load_dataset(
    plan: Experiment,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[int], None] | None = None,
) -> Dataset:
    """List the plan's data set; `data.skip_broken` leaves out what cannot be decoded.

    To know what that is all images are decoded into the cache, if they are not there: `progress`
    and `announce` are those of `open_cache`.
    """
    data = plan.data

    def readable(dataset: Dataset) -> Dataset:
        side = data.transform.train_short_side
        return leave_out(dataset, find_broken(dataset, side, progress, announce, data.max_pixels))

    keep = readable if data.skip_broken else everything
    return registry.load(data.name, data.root, data.split, keep)


def fold_task(plan: Experiment, dataset: Dataset, fold: int) -> Task:
    """Train on all folds of the training classes but one, and validate on that one."""
    return Task(dataset, *split(plan, dataset)[fold])


def split(plan: Experiment, dataset: Dataset) -> list[tuple[Subset, Subset]]:
    """The (train, validation) subsets of each fold; the same for every seed of the plan."""
    protocol = plan.protocol
    return folds.split(dataset, protocol.split, protocol.fold_count, protocol.split_seed)


def with_folds(plan: Experiment, dataset: Dataset) -> Experiment:
    """The plan with a number of folds: where it leaves that open, 4, or as many as can be scored.

    Raises:
        ConfigError: If so few folds lack the one that the plan holds out.
    """
    protocol = plan.protocol
    if protocol.folds is not None:
        return plan
    possible = folds.suitable(dataset, protocol.split, protocol.split_seed, FOLDS)
    count = possible[-1] if possible else FOLDS
    if protocol.fold >= count:
        problem = f"{protocol.fold} does not exist: these classes make {count} folds"
        raise ConfigError("protocol.fold", [f"{problem}. Allowed: 0 to {count - 1}"])
    changed = protocol.model_copy(update={"folds": count})
    return plan.model_copy(update={"protocol": changed})


def full_task(dataset: Dataset) -> Task:
    """Train on all training classes."""
    return Task(dataset, folds.train_subset(dataset), None)


class Training:
    """A learner, its data and its place in a run folder."""

    def __init__(
        self,
        plan: Experiment,
        task: Task,
        folder: RunFolder,
        place: Place,
        keep_best: bool = False,
    ) -> None:
        self.plan, self.task, self.folder, self.place = plan, task, folder, place
        self.keep_best = keep_best
        self.resumed = place.team.decide(folder.last_checkpoint.exists)
        classes = len(task.train.classes)
        self.learner = build_learner(plan, classes, place, fresh=not self.resumed)

    @property
    def trunk(self) -> Trunk:
        """The network below the heads."""
        assert isinstance(self.learner.trunk, Trunk)
        return self.learner.trunk

    @property
    def arithmetic(self) -> Arithmetic:
        """In what precision this training computes on its device."""
        return arithmetic(self.plan.budget, self.place.device)

    def epochs(self) -> Generator[Epoch, None, None]:
        """Yield every epoch from the first: finished ones from the journal, the rest as learned.

        So whoever listens hears the same story after a kill as without one.
        """
        plan, folder, team = self.plan, self.folder, self.place.team
        feed = self.train_feed()
        optimizer = build(plan.optimizer, self.learner.groups())
        progress, scaler = Progress(), self.arithmetic.scaler()
        if self.resumed:
            progress = self.load(folder.last_checkpoint, optimizer)
        elif plan.budget.head_warmup_steps:
            every_image, labels = self.eval_feed(self.task.train), self.task.train.labels
            with self.arithmetic.evaluate():
                warm_up_heads(self.learner, every_image, labels, plan, team)
        progress.scale(scaler)
        team.agree(self.learner)
        for line in team.decide(lambda: self._past(progress.epoch)):
            yield Epoch(line.pop("epoch"), line)
        with CheckpointWriter() as writer:
            for epoch in fit(self.learner, feed, optimizer, plan, progress.epoch, team, scaler):
                metrics = {
                    **epoch.metrics,
                    **self._validate(),
                    **self.learner_metrics(),
                    **self._idle_steps(feed, epoch.number),
                }
                progress.epoch = epoch.number
                best = folder.best_checkpoint if self._is_best(metrics, progress) else None
                if team.leads:
                    progress.note_scale(scaler)
                    writer.flush()  # the log is never two epochs ahead of the checkpoint
                    metrics_log.append(folder.metrics, {"epoch": epoch.number, **metrics})
                    content = checkpoint.pack(self.learner, optimizer, progress, self._identity)
                    writer.save(folder.last_checkpoint, best, content)
                yield Epoch(epoch.number, metrics)

    def _past(self, epoch: int) -> list[dict[str, Any]]:
        """Lines of the journal up to `epoch`; later ones, of a session that was killed, go."""
        self.folder.make()
        metrics_log.rewind(self.folder.metrics, epoch)
        return [line for line in metrics_log.read(self.folder.metrics) if line["epoch"] <= epoch]

    def load(self, path: Path, optimizer: Optimizer | None = None) -> Progress:
        """Fill the learner (and optimizer) from a checkpoint of this training.

        Raises:
            DataError: If it is missing, damaged, or of another training.
        """
        team = self.place.team
        progress = checkpoint.load(path, self.learner, optimizer, self._identity, team)
        epochs = self.plan.budget.epochs
        if progress.epoch > epochs:
            raise DataError(f"{path}: is of epoch {progress.epoch}, its plan has {epochs}")
        return progress

    @cached_property
    def _identity(self) -> str:
        """What members of an ensemble differ in, though their networks may be of one shape."""
        classes = folds.fingerprint(self.task.dataset, self.task.train)
        return f"seed {self.plan.seed}, training images {classes}"

    def learner_metrics(self) -> dict[str, float]:
        """What a method wants to be watched, such as the share of samples per branch."""
        watch = getattr(self.learner, "watch", None)
        return watch() if watch else {}

    def train_feed(self) -> Feed:
        """The images to learn from, augmented, in as many views as the method wants."""
        views = getattr(self.learner, "views", 1)
        cache = self._cache(self.plan.data.transform.train_short_side)
        return self._feed(cache, self.task.train, views)

    def eval_feed(self, subset: Subset) -> Feed:
        """The images of `subset` as tests see them: no augmentation."""
        return self._feed(self._eval_cache, subset)

    @property
    def remarks(self) -> list[str]:
        """What every score must carry: of the data set, of its pixels and of their cutting."""
        transform = self.plan.data.transform
        pixels = self._eval_cache.remarks
        return [*self.task.dataset.remarks, *pixels, *filter(None, [transform.remark])]

    def embed(self, function: Callable[[Tensor], Tensor], subset: Subset) -> Tensor:
        """What `function` of the learner makes of the images of `subset`, in order: (N, D)."""
        with self.arithmetic.evaluate():
            feed, fixed = self.eval_feed(subset), self.plan.budget.compile
            return embed(self.learner, function, feed, self.place.team, fixed)

    def score(self, subset: Subset) -> tuple[Tensor, dict[str, float]]:
        """Unit embeddings (N, D) of `subset` and their retrieval scores."""
        embeddings = self.embed(self.learner.embed, subset)
        if broken := int((~embeddings.isfinite().all(1)).sum()):
            problem = f"{broken} of {len(embeddings)} embeddings are not finite"
            cause = "weights or BatchNorm's statistics have grown too large"
            raise RunError(f"{self.folder}: {problem}: {cause}; try a smaller optimizer.lr")
        task = task_of(subset)
        metrics = self.plan.protocol.retrieval_metrics(task.neighbours)
        return embeddings, retrieval_scores(embeddings, task, metrics)

    def _validate(self) -> dict[str, float]:
        if self.task.validation is None:
            return {}
        embeddings, scores = self.score(self.task.validation)
        return {**scores, "embedding_size": embeddings.shape[1]}

    def _idle_steps(self, feed: Feed, epoch: int) -> dict[str, float]:
        """Count the steps that had no pair to learn from, where the method needs pairs."""
        needed = methods.needs_pairs(self.plan.method.config)
        idle = feed.steps_without_pairs(epoch - 1) if needed else 0
        return {WITHOUT_PAIRS: idle} if idle else {}

    def _is_best(self, metrics: dict[str, float], progress: Progress) -> bool:
        """Note the best score so far in `progress`; whether this epoch is to be kept for it."""
        score = metrics.get(self.plan.protocol.metric)
        if score is None or score <= progress.best:
            return False
        progress.best, progress.best_epoch = score, progress.epoch
        return self.keep_best

    @cached_property
    def _eval_cache(self) -> Cache:
        return open_eval_cache(self.plan.data.transform, self._cache)

    def _cache(self, short_side: int | None) -> Cache:
        return open_cache(self.task.dataset, short_side, max_pixels=self.plan.data.max_pixels)

    def _feed(self, cache: Cache, subset: Subset, views: int = 1) -> Feed:
        data, network = self.plan.data, self.trunk.statistics
        return Feed(
            cache,
            subset,
            data.transform,
            data.batch_size,
            data.images_per_class,
            self.plan.seed,
            data.transform.mean or network.mean,
            data.transform.std or network.std,
            network.scale,
            network.bgr,
            self.place.device,
            self.place.threads,
            views,
            self.place.team.rank,
            self.place.team.size,
            data.replacement,
        )


def synchronise_batchnorm(learner: Learner) -> Learner:
    """Let every BatchNorm normalise by the batch of all workers.

    By timm's conversion: torch's own one drops the activation that timm's BatchNormAct2d holds.
    """
    from timm import layers  # slow to import, needed only here

    converted: Learner = getattr(layers, "convert_sync_batchnorm")(learner)  # noqa: B009  # untyped
    return converted


def build_learner(plan: Experiment, classes: int, place: Place, fresh: bool = True) -> Learner:
    """The plan's learner on its device; weights are only fetched for a `fresh` one."""
    torch.manual_seed(plan.seed)
    backbone = plan.backbone
    trunk = backbones.build(
        backbone.name, backbone.weights if fresh else "none", backbone.pooling, backbone.batchnorm
    )
    method = methods.load(plan.method.name)
    learner = method.Learner(plan.method.config, trunk, trunk.width, classes)
    if place.team.size > 1 and place.device.type == "cuda" and backbone.batchnorm == "train":
        learner = synchronise_batchnorm(learner)
    if place.team.size > 1:
        keep_generators_equal(learner, place.device)
    # Twice as fast on a CPU, and what a GPU's tensor cores want.
    learner = learner.to(device=place.device).to(memory_format=torch.channels_last)
    if plan.budget.compile:
        check_compiler(place.device)
        # In place: a checkpoint's names stay as they are. Shapes are fixed, see `embed`.
        learner.trunk.compile(dynamic=False)
    return learner
