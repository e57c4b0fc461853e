"""Merge finished runs of any methods and sizes: concatenation, greedy selection, PCA."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from pydantic import TypeAdapter
from torch import Tensor

from dmlray.atomic_files import write_json
from dmlray.data import folds
from dmlray.data.folds import Subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.ensemble_selection import greedy
from dmlray.evaluation.pca import check_size, fit_projection
from dmlray.evaluation.task import RetrievalTask
from dmlray.file_reading import reason
from dmlray.json_schema import Sha256, read_checked
from dmlray.learn.class_split import load_dataset
from dmlray.learn.embedding_files import read_embeddings, write_embeddings, write_items
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.run import load_finished
from dmlray.learn.runtime import Runtime
from dmlray.plans.merge import Merge
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import (
    Member,
    all_scores,
    ensemble_curve,
    joined,
    members_of,
    test_task,
)
from dmlray.results.joint_thresholds import validation_subset, with_thresholds
from dmlray.results.merged_file import write_merged
from dmlray.scores import Scores

Counting = Callable[[str], Callable[[int, int], None]]


def merge(plan: Merge, folder: RunFolder, runtime: Runtime, counting: Counting) -> Scores:
    """Score the merged runs; `counting(title)` returns a callback (done, total) for each stage.

    Raises:
        DmlrayError: As in `check`.
    """
    members, task = check(plan)
    folder.make()
    remarks = []
    if plan.greedy:
        members, remark = _select_greedily(members, folder, runtime, counting)
        remarks.append(remark)
    if plan.projects:
        return _project(plan, members, task, remarks, folder, runtime, counting)
    write_merged(folder.merged, members, None)
    counted = counting("k-means, ensemble sizes")
    curve = ensemble_curve(members, task, members[0].plan.protocol, runtime.device, counted)
    scores = replace(joined(members, curve[-1], remarks + _weights(plan)), curve=curve)
    return with_thresholds(scores, members, task, runtime.device)


def check(plan: Merge) -> tuple[list[Member], RetrievalTask]:
    """The members, and the task on the test images that all of them were scored on.

    Raises:
        DmlrayError: If a run cannot be merged with the others.
    """
    weights = plan.weights or (1.0,) * len(plan.runs)
    pairs = zip(plan.runs, weights, strict=True)
    members = [member for run, weight in pairs for member in members_of(run, weight)]
    if plan.greedy:
        _check_held_out(members)
    elif plan.projects:
        check_size(sum(member.scores.embedding_size for member in members), plan.pca)
    return members, test_task(members)


def _check_held_out(members: Sequence[Member]) -> None:
    """Check that all members held out the same validation classes, as greedy selection needs."""
    for member in members:
        if member.plan.protocol.selection != "validation":
            rule = f"protocol.selection={member.plan.protocol.selection}"
            allowed = "Allowed: runs with protocol.selection=validation"
            raise ConfigError("`greedy`", [f"{member.folder} held out nothing ({rule}). {allowed}"])
    if len({member.scores.split_fingerprint for member in members}) > 1:
        problem = "the runs held out different classes. Allowed: runs of one protocol.fold"
        raise ConfigError("`greedy`", [problem])
    plan = members[0].plan
    protocol = plan.protocol
    folds.check(
        load_dataset(plan),
        protocol.split,
        protocol.fold_count,
        protocol.split_seed,
        [protocol.fold],
    )


def _select_greedily(
    members: list[Member], folder: RunFolder, runtime: Runtime, counting: Counting
) -> tuple[list[Member], str]:
    """Select members by their score on the common validation classes; also return a remark."""
    validation = validation_subset(members[0])
    rows = _Embedder(folder, runtime, counting).all(members, validation, "validation")
    protocol = members[0].plan.protocol
    numbers, score = greedy(
        rows,
        task_of(validation),
        protocol.metric,
        [member.weight for member in members],
        counting("members chosen"),
    )
    names = ", ".join(str(members[number].folder) for number in numbers)
    how = f"{protocol.metric} {score:.4f} on the classes that chose the epochs"
    return [members[number] for number in numbers], f"members chosen greedily ({how}): {names}"


def _project(
    plan: Merge,
    members: list[Member],
    task: RetrievalTask,
    remarks: list[str],
    folder: RunFolder,
    runtime: Runtime,
    counting: Counting,
) -> Scores:
    """Score the PCA of the concatenation, fitted on training classes; write the embeddings."""
    dataset = load_dataset(members[0].plan)
    train = folds.train_subset(dataset)
    rows = _Embedder(folder, runtime, counting).all(members, train, "train")
    factors = [member.weight**0.5 for member in members]
    weighted = [row * factor for row, factor in zip(rows, factors, strict=True)]
    projection = fit_projection(weighted, plan.pca, plan.whiten)
    tests = [member.embeddings() * f for member, f in zip(members, factors, strict=True)]
    merged = projection(tests)
    write_merged(folder.merged, members, projection)
    write_items(folder.items, dataset, test_subset(dataset))
    digest = write_embeddings(folder.embeddings, merged)
    metrics = all_scores(merged, task, members[0].plan.protocol)
    whitened = ", whitened" if plan.whiten else ""
    remark = f"PCA to {merged.shape[1]} dimensions{whitened}, fitted on the training classes"
    scores = joined(members, metrics, [*remarks, *_weights(plan), remark])
    scores = replace(scores, embedding_size=merged.shape[1], embeddings_sha256=digest)
    return with_thresholds(scores, members, task, runtime.device, (projection, merged))


def _weights(plan: Merge) -> list[str]:
    weights = ", ".join(f"{weight:g}" for weight in plan.weights)
    return [f"cosines of the runs weighted {weights}"] if weights else []


@dataclass(frozen=True)
class _Embedded:
    """SHA-256 of the member's test embeddings and of a file of further embeddings by it."""

    member: Sha256 | None
    sha256: Sha256


_EMBEDDED = TypeAdapter(_Embedded)


@dataclass(frozen=True)
class _Embedder:
    """Embed further images with the members; existing files are reused."""

    folder: RunFolder
    runtime: Runtime
    counting: Counting

    def all(self, members: Sequence[Member], subset: Subset, name: str) -> list[Tensor]:
        """Return the unit rows (N, D) of `subset` of each member."""
        count = self.counting(f"embedding {name} images, members")
        rows = []
        for number, member in enumerate(members):
            count(number, len(members))
            rows.append(self._one(member, subset, name))
        count(len(members), len(members))
        return rows

    def _one(self, member: Member, subset: Subset, name: str) -> Tensor:
        folder = self.folder.path / "embeddings"
        digest = hashlib.sha256(str(member.folder.path).encode("utf-8", "surrogateescape"))
        file = folder / f"{member.folder.path.name[:40]}_{digest.hexdigest()[:12]}_{name}.npy"
        shape = (len(subset), member.scores.embedding_size)
        try:
            known = read_checked(file.with_suffix(".json"), _EMBEDDED)
            if known == _Embedded(member.scores.embeddings_sha256, known.sha256):
                return torch.from_numpy(read_embeddings(file, shape, known.sha256))
        except (FileNotFoundError, ValueError):
            pass  # missing or damaged: made again
        except OSError as error:
            raise DataError(
                f"{file}: {reason(error)}; delete {folder} and resume the run"
            ) from None
        training = load_finished(member.plan, member.folder, self.runtime)
        rows = training.embed(training.learner.embed, subset)
        folder.mkdir(exist_ok=True)
        made = _Embedded(member.scores.embeddings_sha256, write_embeddings(file, rows))
        write_json(file.with_suffix(".json"), asdict(made))
        return torch.from_numpy(read_embeddings(file, shape, made.sha256))
