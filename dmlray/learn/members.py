"""Finished runs as members of an ensemble: found, compared, and scored as one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError
from dmlray.learn.scores import Scores, read_scores
from dmlray.learn.training import load_dataset
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder


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
            DataError: If the file is missing or damaged.
        """
        expected = (self.scores.test_images, self.scores.embedding_size)
        try:
            rows = np.load(self.folder.embeddings, mmap_mode="c")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.folder.embeddings}: cannot be read: {error}") from None
        if rows.shape != expected:
            problem = f"holds {rows.shape} numbers, its scores say {expected}"
            raise DataError(f"{self.folder.embeddings}: {problem}")
        return torch.from_numpy(rows)


def members_of(run: Path, weight: float = 1.0) -> list[Member]:
    """The finished training in folder `run`, or all members of the finished ensemble there.

    Raises:
        ConfigError: If it is something else.
        RunError: If it is not finished.
    """
    folder = RunFolder(run)
    match folder.kind():
        case "experiment":
            plan = read_experiment(folder.plan("experiment")).experiment
            return [Member(folder, plan, read_scores(folder.scores), weight)]
        case "ensemble":
            size = len(read_scores(folder.scores).curve)
            parts = [members_of(folder.member(index).path, weight) for index in range(size)]
            return [member for part in parts for member in part]
        case kind:
            problem = f"is a {kind}. Allowed: runs of dmlray train and dmlray ensemble"
            raise ConfigError(str(folder), [problem])


def test_labels(members: Sequence[Member]) -> Tensor:
    """Labels (N,) of the test images, which all members share.

    Raises:
        DataError: If members were scored on other images, or the images have changed since.
    """
    first = members[0]
    for other in members[1:]:
        if _test_set(other.scores) != _test_set(first.scores):
            raise DataError(
                f"{other.folder}: was scored on {_test_set(other.scores)}, "
                f"{first.folder} on {_test_set(first.scores)}. Allowed: runs of one test set"
            )
    dataset = load_dataset(first.plan)
    if not dataset.has_fingerprint(first.scores.dataset_fingerprint):
        raise DataError(
            f"{first.folder}: was scored on {_test_set(first.scores)}, but the images there are "
            f"now {dataset.fingerprint}. Allowed: the images that the runs were scored on"
        )
    return torch.as_tensor(test_subset(dataset).labels)


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
        method=_all(part.method for part in scores),
        backbone=_all(part.backbone for part in scores),
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
    )


def _test_set(scores: Scores) -> str:
    images = f"{scores.test_images} images of {scores.test_classes} classes"
    return f"{scores.dataset} {scores.dataset_fingerprint} ({images})"


def _all(names: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(names))


def joint_fingerprint(fingerprints: Sequence[str]) -> str:
    """That of all members where they trained on the same images, else a hash of theirs in order."""
    if len(set(fingerprints)) == 1:
        return fingerprints[0]
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()[:16]
