"""Finished runs as members of an ensemble: loaded, checked and scored together."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError, RunError
from dmlray.evaluation import clustering
from dmlray.evaluation.clustering import Progress, clustering_scores, prefix_clusterings
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.metrics import of_clustering
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from dmlray.file_reading import reason
from dmlray.learn.class_split import load_dataset
from dmlray.learn.embedding_files import read_embeddings
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.run import scores_of
from dmlray.plans.config_sources import differences
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.experiment import Experiment, ProtocolConfig
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import NO_TEST_CLASSES, Scores, read_scores

_CPU = torch.device("cpu")
_MAY_MOVE = (("data", "root"), ("backbone", "weights"))  # paths of a member's plan


@dataclass(frozen=True)
class Member:
    """A finished training; `weight` is the factor of its cosines."""

    folder: RunFolder
    plan: Experiment
    scores: Scores
    weight: float = 1.0

    def embeddings(self) -> Tensor:
        """Read the unit rows (N, D) of the test images.

        Raises:
            DataError: If the file is missing, damaged or changed since it was scored.
        """
        scores = self.scores
        return self._rows(self.folder.embeddings, scores.test_images, scores.embeddings_sha256)

    def validation_embeddings(self) -> Tensor | None:
        """Read the unit rows (N, D) of the training images that were held out; None without any.

        Raises:
            DataError: If the file is damaged or changed since it was scored.
        """
        found, file = self.scores.verification, self.folder.validation_embeddings
        if found is None or not file.exists():
            return None
        return self._rows(file, found.images, found.embeddings_sha256)

    def _rows(self, file: Path, images: int, expected: str | None) -> Tensor:
        shape = (images, self.scores.embedding_size)
        try:
            return torch.from_numpy(read_embeddings(file, shape, expected))
        except (OSError, ValueError) as error:
            remedy = "delete it and resume the run to make it again from the checkpoint"
            raise DataError(f"{file}: {reason(error)}; {remedy}") from None


def members_of(run: Path, weight: float = 1.0) -> list[Member]:
    """Load the finished training in folder `run`, or all members of the finished ensemble there.

    Raises:
        ConfigError: If it is another kind of run.
        RunError: If it is not finished, or its scores are those of another run.
    """
    folder = RunFolder(run)
    match folder.kind():
        case "experiment":
            return [training_of(folder, weight)]
        case "ensemble":
            plan, scores = read_ensemble(folder.plan("ensemble")), read_scores(folder.scores)
            if len(scores.curve) != plan.size:
                problem = f"has a curve of {len(scores.curve)} sizes, its plan {plan.size} members"
                raise RunError(f"{folder.scores}: {problem}; delete it and resume the run")
            return [member_of(plan, folder, index, weight) for index in range(plan.size)]
        case kind:
            problem = f"is a {kind}. Allowed: runs of dmlray train and dmlray ensemble"
            raise ConfigError(str(folder), [problem])


def member_of(plan: Ensemble, folder: RunFolder, index: int, weight: float = 1.0) -> Member:
    """Load the finished member `index` of the ensemble in `folder`.

    Raises:
        ConfigError: If its folder holds another run.
        RunError: If it is not finished, or its scores are those of another run.
    """
    read_scores(folder.member(index).scores)  # an unstarted member has no plan either
    member, planned = training_of(folder.member(index), weight), plan.member(index)
    recorded, expected = member.plan.document(), planned.document()
    for section, path in _MAY_MOVE:
        recorded[section][path] = expected[section][path]
    folds = expected["protocol"]["folds"] or recorded["protocol"]["folds"]  # None until it trains
    expected["protocol"]["folds"] = folds
    changed = differences(recorded, expected)
    if changed:
        problem = f"is not member {index} of the ensemble: it has {', '.join(changed)}"
        raise ConfigError(str(member.folder), [f"{problem}. Allowed: the ensemble's own members"])
    return member


def training_of(folder: RunFolder, weight: float = 1.0) -> Member:
    """Load the finished training in `folder`.

    Raises:
        ConfigError: If it is another kind of run.
        RunError: If it is not finished, or its scores are those of another run.
    """
    if (kind := folder.kind()) != "experiment":
        raise ConfigError(str(folder), [f"is a {kind}. Allowed: a run of dmlray train"])
    plan = read_experiment(folder.plan("experiment")).experiment
    return Member(folder, plan, scores_of(folder, plan), weight)


def test_task(members: Sequence[Member]) -> RetrievalTask:
    """What is searched for in what among the test images, which all members share.

    Raises:
        DataError: If members were scored on different images, or the images have changed since.
    """
    first = members[0]
    check_one_test_set(members)
    dataset = load_dataset(first.plan)
    if not dataset.has_fingerprint(first.scores.dataset_fingerprint):
        raise DataError(
            f"{first.folder}: was scored on {_test_set(first.scores)}, but the images there are "
            f"now {dataset.fingerprint}. Allowed: the images that the runs were scored on"
        )
    return task_of(test_subset(dataset))


def check_one_test_set(members: Sequence[Member]) -> None:
    """Check that all members were scored on the same images.

    Raises:
        DataError: If one was scored on other images than the first, or the first on none.
    """
    first = members[0]
    if not first.scores.test_classes:
        problem = f"has no scores: there are {NO_TEST_CLASSES}"
        raise DataError(f"{first.folder}: {problem}. Allowed: runs with test classes")
    for other in members[1:]:
        if _test_set(other.scores) != _test_set(first.scores):
            raise DataError(
                f"{other.folder}: was scored on {_test_set(other.scores)}, "
                f"{first.folder} on {_test_set(first.scores)}. Allowed: runs of one test set"
            )


def all_scores(
    embeddings: Tensor, task: RetrievalTask, protocol: ProtocolConfig
) -> dict[str, float]:
    """All metrics of `protocol` for unit rows (N, D); k-means runs on their device."""
    retrieved = retrieval_scores(embeddings, task, protocol.retrieval_metrics(task.neighbours))
    return retrieved | clustering_scores(embeddings, task.labels, protocol.clustering_metrics)


def ensemble_curve(
    members: Sequence[Member],
    task: RetrievalTask,
    protocol: ProtocolConfig,
    device: torch.device,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """All metrics of `protocol` for the ensembles of the first 1, 2, ..., L members.

    k-means runs on the CPU; `progress` counts the sizes that it is done with.
    """
    rows = [member.embeddings() for member in members]
    weights = [member.weight for member in members]
    metrics, found = protocol.retrieval_metrics(task.neighbours), protocol.clustering_metrics
    curve = prefix_scores(rows, task, metrics, weights=weights, device=device)
    if not found:
        return curve
    clusterings = prefix_clusterings(rows, task.labels, found, weights)
    for size, scores in enumerate(clusterings, 1):
        curve[size - 1] |= scores
        if progress:
            progress(size, len(members))
    return curve


def joined(members: Sequence[Member], metrics: dict[str, float], remarks: list[str]) -> Scores:
    """Return the first member's scores with the metrics and the protocol of the ensemble."""
    scores = [member.scores for member in members]
    rules = {part.selection for part in scores}
    on_test = "best_on_test" in rules
    choices = {part.tuned_by for part in scores} - {None}
    member_remarks = [remark for part in scores for remark in part.remarks]
    return replace(
        scores[0],
        metrics=metrics,
        method=distinct(part.method for part in scores),
        backbone=distinct(part.backbone for part in scores),
        embedding_size=sum(part.embedding_size for part in scores),
        selection="best_on_test" if on_test else rules.pop() if len(rules) == 1 else "mixed",
        tuned_by="; ".join(sorted(filter(None, choices))) or None,
        split=distinct(part.split for part in scores),
        split_fingerprint=joint_fingerprint([part.split_fingerprint for part in scores]),
        remarks=list(dict.fromkeys([*member_remarks, *remarks])),
        zero_shot=scores[0].zero_shot if len({part.backbone for part in scores}) == 1 else {},
        clustering=clustering.name(_CPU) if of_clustering([*metrics]) else None,
        n=1,
        half_width={},
        curve=[],
        embeddings_sha256=None,  # of one member
        verification=None,  # see `joint_thresholds`
        precision=distinct(part.precision for part in scores),
        computed_on=distinct(part.computed_on for part in scores),
    )


def _test_set(scores: Scores) -> str:
    images = f"{scores.test_images} images of {scores.test_classes} classes"
    return f"{scores.dataset} {scores.dataset_fingerprint} ({images})"


def distinct(names: Iterable[str]) -> str:
    """Join the distinct non-empty names, in order."""
    return " + ".join(dict.fromkeys(filter(None, names)))


def joint_fingerprint(fingerprints: Sequence[str]) -> str:
    """Return the common fingerprint, or a hash of all in order if they differ."""
    if len(set(fingerprints)) == 1:
        return fingerprints[0]
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()[:16]
