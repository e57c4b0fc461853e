"""Score frozen backbones on the same images: each is a run of zero epochs, nothing is trained."""

import torch
from torch import Tensor

from dmlray.data.batches.loader import EVALUATION_BATCH
from dmlray.data.folds import Subset
from dmlray.errors import ConfigError
from dmlray.evaluation.retrieval import retrieval_values
from dmlray.evaluation.significance import class_interval
from dmlray.evaluation.task import RetrievalTask
from dmlray.learn.class_split import ClassSplit, load_dataset, with_folds
from dmlray.learn.embed import evaluation_mode
from dmlray.learn.environment import device_name
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.run import class_split, load_finished, run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import Training
from dmlray.learn.training_speed import now
from dmlray.plans.config_sources import differences
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.backbone_comparison import (
    BackboneComparison,
    BackboneRow,
    IntervalScore,
    ScoredClasses,
)
from dmlray.results.finished_runs import test_task, training_of
from dmlray.scores import protocol_line

_TIMED = 3  # passes of a batch, of which the quickest counts


def empty_comparison(plan: Experiment) -> BackboneComparison:
    """Describe what backbones are scored on by plans such as `plan`."""
    dataset = load_dataset(plan)
    plan = with_folds(plan, dataset)
    split = class_split(plan, dataset)
    validation = _validation(split)
    which = f"fold {plan.protocol.fold} of {plan.protocol.cut()}, of the training classes"
    tested = dataset.labels >= dataset.train_classes
    return BackboneComparison(
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        metric=plan.protocol.metric,
        validation=ScoredClasses(
            which if split.validation else "all training classes",
            len(validation.classes),
            len(validation),
        ),
        test=ScoredClasses(
            "test classes", len(dataset.classes) - dataset.train_classes, int(tested.sum())
        ),
        rows=[],
    )


def score_backbone(plan: Experiment, folder: RunFolder, runtime: Runtime) -> BackboneRow:
    """Score the backbone of a plan of zero epochs in its run folder, and time it.

    Raises:
        DmlrayError: If the folder holds another run, or the images have changed.
    """
    check_same(plan, folder)
    scores = run_training(plan, folder, lambda epoch: None, runtime)
    member, training = training_of(folder), load_finished(plan, folder, runtime)
    validation = _validation(training.split)
    held_out = _intervals(training, training.pooled(validation), task_of(validation))
    tested = {}
    if scores.test_classes:
        tested = _intervals(training, member.embeddings(), test_task([member]))
    return BackboneRow(
        run=folder.path.name,
        backbone=plan.backbone.name,
        pooling=plan.backbone.pooling,
        embedding_size=scores.embedding_size,
        milliseconds=_milliseconds(training, validation),
        device=device_name(runtime.device),
        validation=held_out,
        test=tested,
        protocol=protocol_line(scores),
    )


def check_same(plan: Experiment, folder: RunFolder, backbone: bool = True) -> None:
    """Check that a run that was begun in `folder` has this plan, if need be but for its `backbone`.

    Raises:
        ConfigError: If not.
    """
    if not folder.plan("experiment").exists():
        return
    begun = read_experiment(folder.plan("experiment")).experiment
    fitted = with_folds(plan, load_dataset(plan))
    there, here = begun.document(), fitted.document()
    if not backbone:
        here["backbone"] = there["backbone"]
    if changed := differences(there, here):
        allowed = "Allowed: the settings that it was begun with, or a new folder (`out`)"
        raise ConfigError(str(folder), [f"was begun with {', '.join(changed)}. {allowed}"])


def _validation(split: ClassSplit) -> Subset:
    """The classes that choose: of a backbone that is not trained these may be all that train."""
    return split.validation or split.train


def _intervals(training: Training, rows: Tensor, task: RetrievalTask) -> dict[str, IntervalScore]:
    """Each retrieval metric of unit rows (N, F)."""
    names = training.plan.protocol.retrieval_metrics(task.neighbours)
    labels = task.of_queries(task.labels).cpu().numpy()
    found = {}
    for name, values in retrieval_values(rows, task, names).items():
        interval = class_interval(values.cpu().numpy(), labels)
        low, high = (interval.low, interval.high) if interval else (None, None)
        found[name] = IntervalScore(float(values.nanmean()), low, high)
    return found


def _milliseconds(training: Training, subset: Subset) -> float:
    """Time of an image in the network, in the first batch of `subset`."""
    device = training.runtime.device
    ((images, _),) = training.eval_batches(subset.first(EVALUATION_BATCH)).evaluation()
    seconds = []
    with evaluation_mode(training.learner), torch.inference_mode(), training.precision.evaluate():
        for _ in range(_TIMED):
            began = now(device)
            training.trunk(images)
            seconds.append(now(device) - began)
    return 1000 * min(seconds) / len(images)
