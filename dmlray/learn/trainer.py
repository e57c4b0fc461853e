"""Train one learner on a class split, resumable after each epoch."""

from collections.abc import Callable, Generator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmlray import backbones, methods
from dmlray.backbones import Trunk
from dmlray.data import folds
from dmlray.data.batches.loader import BatchLoader, Delivery
from dmlray.data.cache.eval_cache import open_eval_cache
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.datasets import role_checks
from dmlray.data.folds import Subset
from dmlray.errors import DataError, RunError
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.learn import checkpoint, metrics_log
from dmlray.learn.checkpoint_writer import CheckpointWriter
from dmlray.learn.class_split import ClassSplit
from dmlray.learn.compiler import check_compiler
from dmlray.learn.embed import embed, evaluation_mode
from dmlray.learn.frozen_features import (
    FeatureLoader,
    cached_features,
    embed_features,
    trunk_digest,
)
from dmlray.learn.head_warmup import warm_up_heads
from dmlray.learn.loop import Epoch, fit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.precision import Precision, precision_of
from dmlray.learn.random_layers import keep_generators_equal
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.runtime import Runtime
from dmlray.learn.shared_features import shared_features
from dmlray.learn.state import TrainProgress, TrainState
from dmlray.learn.teacher import TaughtLoader, TeacherVectors, TrainLoader, read_vectors
from dmlray.losses.cosine import unit_rows
from dmlray.methods import Learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder

WITHOUT_PAIRS = "steps_without_pairs"  # metric of epochs that have such steps


class Training:
    """A learner, its data and its run folder."""

    def __init__(
        self,
        plan: Experiment,
        split: ClassSplit,
        folder: RunFolder,
        runtime: Runtime,
        keep_best: bool = False,
    ) -> None:
        self.plan, self.split, self.folder, self.runtime = plan, split, folder, runtime
        self.keep_best = keep_best
        self._frozen: str | None = None  # digest of a frozen trunk, once it is needed
        self.resumed = runtime.group.ask_main(folder.last_checkpoint.exists)
        classes = len(split.train.classes)
        self.learner = build_learner(plan, classes, runtime, fresh=not self.resumed)

    @property
    def trunk(self) -> Trunk:
        """The network below the heads."""
        assert isinstance(self.learner.trunk, Trunk)
        return self.learner.trunk

    @property
    def precision(self) -> Precision:
        """Precision of this training on its device."""
        return precision_of(self.plan.budget, self.runtime.device)

    def epochs(self) -> Generator[Epoch, None, None]:
        """Yield every epoch from the first: finished ones from the metrics log, then new ones.

        Reporters thus see the same sequence with or without a restart.
        """
        plan, folder, group = self.plan, self.folder, self.runtime.group
        state = self._start()
        loader = self.train_batches()
        group.broadcast(self.learner)
        for line in group.ask_main(lambda: self._finished_epochs(state.progress.epoch)):
            yield Epoch(line.pop("epoch"), line)
        with CheckpointWriter() as writer:
            for epoch in fit(state, loader, plan, group):
                metrics = {
                    **epoch.metrics,
                    **self._validate(),
                    **self.learner.metrics(),
                    **self._idle_steps(loader, epoch.number),
                }
                best = folder.best_checkpoint if self._is_best(metrics, state.progress) else None
                if group.is_main:
                    content = state.state_dict()
                    writer.flush()  # the log is never two epochs ahead of the checkpoint
                    metrics_log.append(folder.metrics, {"epoch": epoch.number, **metrics})
                    writer.save(folder.last_checkpoint, best, content)
                yield Epoch(epoch.number, metrics)

    def save_untrained(self) -> None:
        """Write the checkpoint of a plan that trains nothing."""
        self.runtime.group.broadcast(self.learner)
        if self.runtime.group.is_main:
            checkpoint.save(
                self.folder.last_checkpoint, TrainState(self.learner, identity=self._identity)
            )

    def _start(self) -> TrainState[Learner]:
        """Load the last checkpoint, or start from the beginning with warmed-up heads."""
        optimizer = build_optimizer(self.plan.optimizer, self.learner.groups())
        state = TrainState(self.learner, optimizer, self._identity, self.precision.scaler())
        if self.resumed:
            self._load(self.folder.last_checkpoint, state)
        elif self.plan.budget.head_warmup_steps:
            train = self.split.train
            features = self._features(train)
            with self.precision.evaluate():
                warm_up_heads(self.learner, features, train.labels, self.plan, self._targets)
        return state

    def _finished_epochs(self, epoch: int) -> list[dict[str, Any]]:
        """Read the log up to `epoch`; later lines, of a session that was killed, are removed."""
        self.folder.make()
        metrics_log.rewind(self.folder.metrics, epoch)
        return [line for line in metrics_log.read(self.folder.metrics) if line["epoch"] <= epoch]

    def load(self, path: Path) -> TrainProgress:
        """Fill the learner from a checkpoint of this training.

        Raises:
            DataError: If it is missing, damaged, or of another training.
        """
        return self._load(path, TrainState(self.learner, identity=self._identity))

    def _load(self, path: Path, state: TrainState[Learner]) -> TrainProgress:
        self._frozen = None
        progress = checkpoint.load(path, state, self.runtime.group)
        epochs = self.plan.budget.epochs
        if progress.epoch > epochs:
            raise DataError(f"{path}: is of epoch {progress.epoch}, its plan has {epochs}")
        return progress

    @cached_property
    def _identity(self) -> str:
        """Seed and training images, which distinguish ensemble members of the same architecture."""
        classes = folds.fingerprint(self.split.dataset, self.split.train)
        return f"seed {self.plan.seed}, training images {classes}"

    def train_batches(self) -> TrainLoader:
        """Return the training images or their features, and the teacher's vectors if there is one.

        Images are augmented and in the method's views.
        """
        loader = self._train_images()
        if self._targets is None:
            return loader
        return TaughtLoader(loader, self._targets, self.runtime.group)

    def _train_images(self) -> BatchLoader | FeatureLoader:
        cache = self._cache(self.plan.data.transform.train_short_side)
        images = self._batches(cache, self.split.train, self.learner.views)
        if not self.plan.backbone.frozen:
            return images
        return FeatureLoader(images, self._features(self.split.train), self.runtime.group)

    @cached_property
    def _teacher(self) -> TeacherVectors | None:
        if not (self.plan.trains and methods.has_teacher(self.plan.method.config)):
            return None
        return read_vectors(self.folder.teacher, self.split.dataset, self.runtime.group)

    @cached_property
    def _targets(self) -> Tensor | None:
        """The teacher's vectors (N, R) of the training images."""
        if self._teacher is None:
            return None
        return self._teacher.of(self.split.train).to(self.runtime.device)

    def eval_batches(self, subset: Subset) -> BatchLoader:
        """Return the images of `subset` with the evaluation transform."""
        return self._batches(self._eval_cache, subset)

    @property
    def remarks(self) -> list[str]:
        """Remarks for every score, on the data set, roles, the decoded images and the crop."""
        dataset, crop = self.split.dataset, self.plan.data.transform.remark
        listed = [*dataset.remarks, *role_checks.remarks(dataset)]
        taught = self._teacher.remark if self._teacher else None
        return [*listed, *self._eval_cache.remarks, *filter(None, [crop, taught])]

    def embed(self, function: Callable[[Tensor], Tensor], subset: Subset) -> Tensor:
        """Apply `function` of the learner to the images of `subset`, in order: (N, D)."""
        if self.plan.backbone.frozen and function is not self.trunk:
            features = self._features(subset)
            with evaluation_mode(self.learner), self.precision.evaluate():
                return embed_features(function, features)
        with self.precision.evaluate():
            loader, fixed = self.eval_batches(subset), self.plan.budget.compile
            return embed(self.learner, function, loader, self.runtime.group, fixed)

    def _features(self, subset: Subset) -> Tensor:
        """Return features (N, F) of the trunk before any training of it; never a trained one's."""
        if not self.plan.backbone.frozen:
            return self._untrained(subset)
        if self._frozen is None:
            self._frozen = trunk_digest(self.trunk)
        return cached_features(
            self.plan, self.split.dataset, subset, self._frozen, self.runtime.device,
            lambda: self._untrained(subset),
        )  # fmt: skip

    def _untrained(self, subset: Subset) -> Tensor:
        """Compute the trunk's features (N, F), or read those of another training of the run."""

        def compute(images: Subset) -> Tensor:
            return self.embed(self.trunk, images).clone()  # leave inference mode

        if self.runtime.group.size > 1:  # its workers compute together
            return compute(subset)
        return shared_features(
            self.plan, self.folder, self.split.dataset, subset, self.trunk,
            self.runtime.device, compute,
        )  # fmt: skip

    def pooled(self, subset: Subset) -> Tensor:
        """Compute the features (N, F) of length 1 of the untrained trunk, to be scored."""
        return unit_rows(self._features(subset))

    def embeddings(self, subset: Subset) -> Tensor:
        """Compute the unit embeddings (N, D) that are scored."""
        if not self.plan.trains:
            return self.pooled(subset)
        return self.embed(self.learner.embed, subset)

    def score(self, subset: Subset) -> tuple[Tensor, dict[str, float]]:
        """Return unit embeddings (N, D) of `subset` and their retrieval scores."""
        embeddings = self.embeddings(subset)
        if broken := int((~embeddings.isfinite().all(1)).sum()):
            problem = f"{broken} of {len(embeddings)} embeddings are not finite"
            cause = "weights or BatchNorm's statistics have grown too large"
            raise RunError(f"{self.folder}: {problem}: {cause}; try a smaller optimizer.lr")
        return embeddings, self.retrieval(embeddings, subset)

    def retrieval(self, embeddings: Tensor, subset: Subset) -> dict[str, float]:
        """Score unit rows (N, D) of the images of `subset` by the protocol's retrieval metrics."""
        task = task_of(subset)
        metrics = self.plan.protocol.retrieval_metrics(task.neighbours)
        return retrieval_scores(embeddings, task, metrics)

    def _validate(self) -> dict[str, float]:
        if self.split.validation is None:
            return {}
        embeddings, scores = self.score(self.split.validation)
        return {**scores, "embedding_size": embeddings.shape[1]}

    def _idle_steps(self, loader: TrainLoader, epoch: int) -> dict[str, float]:
        """Count the steps without pairs if the method needs pairs."""
        needed = methods.needs_pairs(self.plan.method.config)
        idle = loader.steps_without_pairs(epoch - 1) if needed else 0
        return {WITHOUT_PAIRS: idle} if idle else {}

    def _is_best(self, metrics: dict[str, float], progress: TrainProgress) -> bool:
        """Update the best score in `progress`; return whether to keep this epoch's checkpoint."""
        score = metrics.get(self.plan.protocol.metric)
        if score is None or score <= progress.best:
            return False
        progress.best, progress.best_epoch = score, progress.epoch
        return self.keep_best

    @cached_property
    def _eval_cache(self) -> Cache:
        return open_eval_cache(self.plan.data.transform, self._cache)

    def _cache(self, short_side: int | None) -> Cache:
        return open_cache(self.split.dataset, short_side, max_pixels=self.plan.data.max_pixels)

    def _batches(self, cache: Cache, subset: Subset, views: int = 1) -> BatchLoader:
        data, network = self.plan.data, self.trunk.statistics
        mean, std = data.transform.mean or network.mean, data.transform.std or network.std
        runtime, group = self.runtime, self.runtime.group
        return BatchLoader(
            cache,
            subset,
            data.transform,
            data.sampling(self.plan.seed, views),
            network._replace(mean=mean, std=std),
            Delivery(runtime.device, runtime.threads, group.rank, group.size),
        )


def synchronise_batchnorm(learner: Learner) -> Learner:
    """Convert BatchNorm to normalise over the batch of all workers.

    Uses timm's conversion: torch's drops the activation inside timm's BatchNormAct2d.
    """
    from timm import layers  # slow to import, needed only here

    converted: Learner = getattr(layers, "convert_sync_batchnorm")(learner)  # noqa: B009  # untyped
    return converted


def build_learner(plan: Experiment, classes: int, runtime: Runtime, fresh: bool = True) -> Learner:
    """Build the plan's learner on its device; weights are loaded only for a `fresh` one."""
    torch.manual_seed(plan.seed)
    backbone = plan.backbone
    trunk = backbones.build(
        backbone.name, backbone.weights if fresh else "none", backbone.pooling, backbone.batchnorm
    )
    if backbone.frozen:
        trunk.requires_grad_(False)
    method = methods.load(plan.method.name)
    learner = method.Learner(plan.method.config, trunk, trunk.width, classes)
    if runtime.group.size > 1 and runtime.device.type == "cuda" and backbone.batchnorm == "train":
        learner = synchronise_batchnorm(learner)
    if runtime.group.size > 1:
        keep_generators_equal(learner, runtime.device)
    # Twice as fast on a CPU, and the native layout of a GPU's tensor cores.
    learner = learner.to(device=runtime.device).to(memory_format=torch.channels_last)
    if plan.budget.compile:
        check_compiler(runtime.device)
        # In place, so that parameter names do not change. Shapes are fixed, see `embed`.
        learner.trunk.compile(dynamic=False)
    return learner
