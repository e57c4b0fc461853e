"""Finished runs as members of an ensemble: found, compared, and scored as one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError, RunError
from dmlray.file_reading import reason
from dmlray.learn.class_split import load_dataset
from dmlray.learn.embedding_files import read_embeddings
from dmlray.learn.run import scores_of
from dmlray.plans.config_sources import differences
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores, read_scores

_MAY_MOVE = (("data", "root"), ("backbone", "weights"))  # paths of a member's plan


@dataclass(frozen=True)
class Member:
    """A finished training; `weight` is the factor of its cosines."""

    folder: RunFolder
    plan: Experiment
    scores: Scores
    weight: float = 1.0

    def embeddings(self) -> Tensor:
        """Unit rows (N, D) of the test images, read from the file as they are needed.

        Raises:
            DataError: If the file is missing or damaged, or no longer what was scored.
        """
        file, shape = self.folder.embeddings, (self.scores.test_images, self.scores.embedding_size)
        try:
            return torch.from_numpy(read_embeddings(file, shape, self.scores.embeddings_sha256))
        except (OSError, ValueError) as error:
            mend = "delete it and --resume the run to make it again from the checkpoint"
            raise DataError(f"{file}: {reason(error)}; {mend}") from None


def members_of(run: Path, weight: float = 1.0) -> list[Member]:
    """The finished training in folder `run`, or all members of the finished ensemble there.

    Raises:
        ConfigError: If it is something else.
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
                raise RunError(f"{folder.scores}: {problem}; delete it and --resume the run")
            return [member_of(plan, folder, index, weight) for index in range(plan.size)]
        case kind:
            problem = f"is a {kind}. Allowed: runs of dmlray train and dmlray ensemble"
            raise ConfigError(str(folder), [problem])


def member_of(plan: Ensemble, folder: RunFolder, index: int, weight: float = 1.0) -> Member:
    """The finished member `index` of the ensemble in `folder`.

    Raises:
        ConfigError: If another run lies in its place.
        RunError: If it is not finished, or its scores are those of another run.
    """
    read_scores(folder.member(index).scores)  # what has not begun has no plan either
    member, expected = training_of(folder.member(index), weight), plan.member(index)
    theirs, ours = member.plan.document(), expected.document()
    for section, path in _MAY_MOVE:
        theirs[section][path] = ours[section][path]
    folds = ours["protocol"]["folds"] or theirs["protocol"]["folds"]  # open until it trains
    ours["protocol"]["folds"] = folds
    changed = differences(theirs, ours)
    if changed:
        problem = f"is not member {index} of the ensemble: it has {', '.join(changed)}"
        raise ConfigError(str(member.folder), [f"{problem}. Allowed: the ensemble's own members"])
    return member


def training_of(folder: RunFolder, weight: float = 1.0) -> Member:
    """The finished training in `folder`.

    Raises:
        ConfigError: If it is something else.
        RunError: If it is not finished, or its scores are those of another run.
    """
    if (kind := folder.kind()) != "experiment":
        raise ConfigError(str(folder), [f"is a {kind}. Allowed: a run of dmlray train"])
    plan = read_experiment(folder.plan("experiment")).experiment
    return Member(folder, plan, scores_of(folder, plan), weight)


def test_labels(members: Sequence[Member]) -> Tensor:
    """Labels (N,) of the test images, which all members share.

    Raises:
        DataError: If members were scored on other images, or the images have changed since.
    """
    first = members[0]
    check_one_test_set(members)
    dataset = load_dataset(first.plan)
    if not dataset.has_fingerprint(first.scores.dataset_fingerprint):
        raise DataError(
            f"{first.folder}: was scored on {_test_set(first.scores)}, but the images there are "
            f"now {dataset.fingerprint}. Allowed: the images that the runs were scored on"
        )
    return torch.as_tensor(test_subset(dataset).labels)


def check_one_test_set(members: Sequence[Member]) -> None:
    """Demand that all members were scored on the same images.

    Raises:
        DataError: If one was scored on others than the first.
    """
    first = members[0]
    for other in members[1:]:
        if _test_set(other.scores) != _test_set(first.scores):
            raise DataError(
                f"{other.folder}: was scored on {_test_set(other.scores)}, "
                f"{first.folder} on {_test_set(first.scores)}. Allowed: runs of one test set"
            )


def joined(members: Sequence[Member], metrics: dict[str, float], remarks: list[str]) -> Scores:
    """The first member's scores with what the whole ensemble has, and depends on, instead."""
    scores = [member.scores for member in members]
    rules = {part.selection for part in scores}
    on_test = "best_on_test" in rules
    choices = {part.tuned_by for part in scores} - {None}
    said = [remark for part in scores for remark in part.remarks]
    return replace(
        scores[0],
        metrics=metrics,
        method=distinct(part.method for part in scores),
        backbone=distinct(part.backbone for part in scores),
        embedding_size=sum(part.embedding_size for part in scores),
        selection="best_on_test" if on_test else rules.pop() if len(rules) == 1 else "mixed",
        tuned_by="; ".join(sorted(filter(None, choices))) or None,
        split_fingerprint=joint_fingerprint([part.split_fingerprint for part in scores]),
        remarks=list(dict.fromkeys([*said, *remarks])),
        zero_shot=scores[0].zero_shot if len({part.backbone for part in scores}) == 1 else {},
        clustering=None,  # of one member; the merged embeddings are never side by side
        n=1,
        half_width={},
        curve=[],
        embeddings_sha256=None,  # of one member
        precision=distinct(part.precision for part in scores),
        computed_on=distinct(part.computed_on for part in scores),
    )


def _test_set(scores: Scores) -> str:
    images = f"{scores.test_images} images of {scores.test_classes} classes"
    return f"{scores.dataset} {scores.dataset_fingerprint} ({images})"


def distinct(names: Iterable[str]) -> str:
    """Each name once, in order; empty ones are left out."""
    return " + ".join(dict.fromkeys(filter(None, names)))


def joint_fingerprint(fingerprints: Sequence[str]) -> str:
    """That of all members where they trained on the same images, else a hash of theirs in order."""
    if len(set(fingerprints)) == 1:
        return fingerprints[0]
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()[:16]
