"""Scores of a model on other data than those of its training."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import torch

from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.evaluation import clustering
from dmlray.evaluation.metrics import of_clustering
from dmlray.inference.model import Model
from dmlray.learn.class_split import load_dataset
from dmlray.learn.device import default_device
from dmlray.learn.environment import computed_on
from dmlray.learn.precision import precision_of
from dmlray.learn.retrieval_task import task_of
from dmlray.plans.config_sources import Overrides, flatten, read_overrides
from dmlray.plans.experiment import ZERO_SHOT, BudgetConfig, Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import all_scores, distinct
from dmlray.scores import Scores

_METHOD = "proxy_anchor"  # of a model without settings; nothing of it is used
_DATA = ("name", "root", "split", "skip_broken", "max_megapixels")  # others are of a training
_CHOICE = ("selection", "fold")  # of an epoch of the training
_SEEN = "some of these classes were trained on"


def other_data(model: Model, overrides: Overrides) -> Experiment:
    """The protocol of the model's training, for the data set that the overrides name.

    Raises:
        ConfigError: If they name none, or anything but a data set and the protocol.
    """
    given = read_overrides(overrides)
    keys = [*flatten(given.values)]
    allowed = [f"data.{name}" for name in _DATA]
    choices = [f"protocol.{name}" for name in _CHOICE]
    strange = [
        key for key in keys if key in choices or not (key in allowed or key.startswith("protocol."))
    ]
    if strange:
        problem = f"is not of an evaluation. Allowed: {', '.join(allowed)}, protocol.KEY"
        raise ConfigError("command line", [f"{key}: {problem}" for key in strange])
    if "data.name" not in keys:
        raise ConfigError("data.name", ["is missing. Allowed: the data set that is to be scored"])
    settings = model.config.settings or {"method": {"name": _METHOD}}
    protocol = {
        key: value for key, value in settings.get("protocol", {}).items() if key not in _CHOICE
    }
    kept = {"method": settings["method"], "protocol": {**protocol, "selection": "last"}}
    return read_experiment(kept, overrides).experiment


def evaluate_on(
    model: Model,
    plan: Experiment,
    folder: RunFolder,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score a model on the test classes of `plan.data`, or on all with `data.split=all`.

    Args:
        model: Of the run or model in `folder`.
        plan: Data set and protocol, see `other_data`.
        folder: Where the scores are written, in a file of their own.
        progress: Called with (images done, images in all).

    Raises:
        DmlrayError: If the folder cannot be written, or the images cannot be scored.
    """
    if not os.access(folder.path, os.W_OK):
        raise ConfigError(str(folder), ["cannot be written. Allowed: a copy of it"])
    dataset = load_dataset(plan)
    subset = test_subset(dataset) or train_subset(dataset)
    if flaw := folds.flaw(dataset, subset.classes):
        raise DataError(f"{dataset.root}: what is scored {flaw}. Allowed: at least 2 classes")
    described = _scores(model, plan, dataset, subset)
    images = [dataset.root / dataset.files[row] for row in subset.rows]
    device = default_device()
    rows = torch.from_numpy(model.embed(images, device=device, progress=progress))
    metrics = all_scores(rows, task_of(subset), plan.protocol)
    precision = precision_of(BudgetConfig(precision=model.config.precision), device)
    scores = replace(
        described,
        metrics=metrics,
        clustering=clustering.name(rows.device) if of_clustering([*metrics]) else None,
        precision=str(precision),
        computed_on=computed_on(device),
    )
    scored = f"{dataset.name}_{plan.data.split}_{dataset.fingerprint}"
    scores.write(folder.evaluation(scored + _protocol_suffix(model, plan)))
    return scores


def _protocol_suffix(model: Model, plan: Experiment) -> str:
    """A hash of a protocol that is not the training's, so that no scores replace others."""
    if plan.protocol == other_data(model, {"data.name": plan.data.name}).protocol:
        return ""
    return f"_{hashlib.sha256(plan.protocol.model_dump_json().encode()).hexdigest()[:8]}"


def _trained_on(model: Model, known: Scores, plan: Experiment) -> set[str]:
    """Images of the plan's data set that the model was trained on, if it was trained on this set.

    The training may have divided the same images otherwise into training and test classes.
    """
    data = (model.config.settings or {}).get("data", {})
    if data.get("name", plan.data.name) != plan.data.name:
        return set()
    split = data.get("split", plan.data.split)
    try:
        dataset = load_dataset(override(plan, "data", {"data.split": split}))
    except DmlrayError:  # they are other images: the training's could be divided so
        return set()
    if dataset.fingerprint != known.dataset_fingerprint:
        return set()
    return {dataset.files[row] for row in train_subset(dataset).rows}


def _scores(model: Model, plan: Experiment, dataset: Dataset, subset: Subset) -> Scores:
    """All but the metrics: how the model was trained, and what it is scored on."""
    known = model.scores if model.scores and model.scores.method != ZERO_SHOT else None
    remarks = list(dataset.remarks)
    if known and _trained_on(model, known, plan) & {dataset.files[row] for row in subset.rows}:
        remarks.append(_SEEN)
    return Scores(
        metrics={},
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        split_fingerprint=known.split_fingerprint if known else "",
        split=known.split if known else "",
        test_classes=len(subset.classes),
        test_images=len(subset),
        method=known.method if known else ZERO_SHOT,
        backbone=distinct(branch.backbone for branch in model.config.branches),
        embedding_size=model.dimension,
        selection=known.selection if known else "none",
        tuned_by=known.tuned_by if known else None,
        seed=known.seed if known else 0,
        remarks=remarks,
        trained_on=f"{known.dataset} {known.dataset_fingerprint}" if known else "nothing",
    )
