"""The test images of a finished run, from its files: embeddings, classes and paths."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dmlray.data.roles import Roles
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.task import RetrievalTask
from dmlray.file_reading import reason
from dmlray.learn.class_split import load_dataset
from dmlray.learn.embedding_files import Items, read_embeddings, read_items
from dmlray.learn.retrieval_task import task_with
from dmlray.plans.merge import read_merge
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import concatenated
from dmlray.results.finished_runs import Member, members_of, test_task, training_of
from dmlray.scores import NO_TEST_CLASSES, Scores


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Unit rows (N, D), and of each row the class and the path below the data set's root."""

    rows: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    roles: Roles | None = None

    @cached_property
    def names(self) -> list[str]:
        """The classes (C,), sorted."""
        return sorted(set(self.classes))

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64 into `names`."""
        number = {name: index for index, name in enumerate(self.names)}
        return np.array([number[name] for name in self.classes], dtype=np.int64)

    @property
    def task(self) -> RetrievalTask:
        """The queries are searched for in the gallery; without roles, each in all others."""
        return task_with(self.labels, self.roles)


def scored_images(folder: RunFolder, scores: Scores) -> ScoredImages:
    """Read the test images of a finished training, ensemble, PCA merge, or repeat of one training.

    Paths and classes come from items.csv; runs of older versions have none, and their data set is
    listed again.

    Raises:
        ConfigError: If the run has no embeddings of its own, or no test classes.
        DataError: If its files are damaged, or its images have changed and it has no items.csv.
    """
    if not scores.test_classes:
        raise ConfigError(
            str(folder), [f"has no test images: {NO_TEST_CLASSES}. Allowed: other runs"]
        )
    members = _sources(folder)
    if folder.kind() == "merge":
        return _with_items(_rows(folder, scores), members[0])
    if len(members) == 1:
        return _with_items(members[0].embeddings(), members[0])
    rows = concatenated([member.embeddings().numpy() for member in members])
    return _with_items(rows, members[0])


def _sources(folder: RunFolder) -> list[Member]:
    """The trainings whose embeddings are searched."""
    match folder.kind():
        case "experiment" | "ensemble":
            return members_of(folder.path)
        case "repeat" | "cross_validation":
            return [training_of(folder.member(0))]
        case "merge" if folder.embeddings.exists():
            return members_of(read_merge(folder.plan("merge")).runs[0])  # of equal test images
        case kind:
            problem = f"is a {kind} without embeddings of its own"
            raise ConfigError(str(folder), [f"{problem}. Allowed: other runs, or merges with PCA"])


def _rows(folder: RunFolder, scores: Scores) -> Tensor:
    try:
        shape = (scores.test_images, scores.embedding_size)
        return torch.from_numpy(read_embeddings(folder.embeddings, shape, scores.embeddings_sha256))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder.embeddings}: {reason(error)}") from None


def _with_items(rows: Tensor, member: Member) -> ScoredImages:
    items = _items(member)
    if len(items.files) != len(rows):
        problem = f"lists {len(items.files)} images, the embeddings are of {len(rows)}"
        raise DataError(f"{member.folder.items}: {problem}")
    return ScoredImages(rows, items.classes, items.files, items.roles)


def _items(member: Member) -> Items:
    try:
        return read_items(member.folder.items)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        remedy = "delete it, and the data set is listed in its place"
        raise DataError(f"{member.folder.items}: {reason(error)}; {remedy}") from None
    test_task([member])  # checks that the images are those that were scored
    dataset = load_dataset(member.plan)
    subset = test_subset(dataset)
    return Items(
        tuple(dataset.files[row] for row in subset.rows),
        tuple(dataset.classes[dataset.labels[row]] for row in subset.rows),
        subset.roles,
    )
