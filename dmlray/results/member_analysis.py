"""The members of a finished ensemble or merge: how alike they are, what each contributes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO

import torch
from torch import Tensor

from dmlray.atomic_files import write_text
from dmlray.evaluation.leave_one_out import agreement, without_each
from dmlray.evaluation.retrieval import retrieval_values
from dmlray.evaluation.task import RetrievalTask
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable
from dmlray.results.finished_runs import Member, members_of, test_task
from dmlray.results.merged_file import read_merged

METRICS = ("recall_at_1", "map_at_r")
_MOST_QUERIES = 5000  # the time of ranking grows with members x queries x gallery


@dataclass(frozen=True)
class MemberRow:
    """One member: its own scores, its mean agreement with all others, and what it adds.

    `adds` is by how much each score of the ensemble is higher with it; empty where the embeddings
    were projected after the merge.
    """

    name: str
    scores: dict[str, float]
    agreement: float
    adds: dict[str, float]

    def record(self) -> dict[str, object]:
        """The member as a row of a table, with a value for each of METRICS."""
        adds = {f"{name}_added": self.adds.get(name) for name in METRICS}
        return {"member": printable(self.name), **self.scores, "agreement": self.agreement, **adds}


@dataclass(frozen=True)
class MemberAnalysis:
    """All members and their mean pairwise agreement, on `queries` of `all_queries`.

    `by_chance` is the agreement of independent members with the same scores.
    """

    rows: list[MemberRow]
    agreement: float
    by_chance: float
    queries: int
    all_queries: int

    def write(self, folder: RunFolder) -> None:
        """Write members.csv."""
        text = StringIO()
        records = [row.record() for row in self.rows]
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        write_text(folder.table("members"), text.getvalue())


def analyse_members(folder: RunFolder, device: torch.device) -> MemberAnalysis | None:
    """Analyse the members of a finished ensemble or merge; None where there is only one.

    Of a large test set a part of the queries is enough, evenly spaced; the gallery is whole.

    Raises:
        DmlrayError: If files of a member are missing or damaged, or the images have changed.
    """
    members, projected = _members(folder)
    if len(members) < 2:
        return None
    task = test_task(members)
    some = _some_queries(task)
    rows = [member.embeddings() for member in members]
    alone = [retrieval_values(row.to(device), some, METRICS) for row in rows]
    counted = ~torch.isnan(alone[0]["recall_at_1"])
    hits = torch.stack([values["recall_at_1"][counted] for values in alone]).cpu()
    alike = agreement(hits)
    recall = hits.double().mean(1)
    none: list[dict[str, float]] = [{}] * len(members)
    adds = none if projected else _contributions(members, rows, some, device)
    found = zip(members, alone, alike, adds, strict=True)
    return MemberAnalysis(
        [
            MemberRow(
                _name(member, folder),
                {name: float(values[name][counted].mean()) for name in METRICS},
                float(row.sum() - 1) / (len(members) - 1),
                added,
            )
            for member, values, row, added in found
        ],
        agreement=_pairs(alike),
        by_chance=_pairs(_by_chance(recall)),
        queries=some.query_count,
        all_queries=task.query_count,
    )


def _members(folder: RunFolder) -> tuple[list[Member], bool]:
    """The members, and whether their embeddings were projected after the merge."""
    if folder.kind() == "ensemble":
        return members_of(folder.path), False
    members, projection = read_merged(folder)
    return members, projection is not None


def _contributions(
    members: Sequence[Member], rows: Sequence[Tensor], task: RetrievalTask, device: torch.device
) -> list[dict[str, float]]:
    """The scores of all members minus those of all others."""
    weights = [member.weight for member in members]
    whole, others = without_each(rows, task, METRICS, weights, device)
    return [{name: whole[name] - other[name] for name in METRICS} for other in others]


def _pairs(matrix: Tensor) -> float:
    """The mean of (L, L) over all pairs of different members."""
    size = len(matrix)
    return float(matrix.sum() - matrix.trace()) / (size * (size - 1))


def _by_chance(recall: Tensor) -> Tensor:
    """(L, L) agreement of independent members with these shares (L,) of hits."""
    return recall[:, None] * recall + (1 - recall[:, None]) * (1 - recall)


def _some_queries(task: RetrievalTask) -> RetrievalTask:
    step = -(-task.query_count // _MOST_QUERIES)
    if step == 1:
        return task
    images = torch.arange(len(task.labels))
    return replace(task, queries=task.of_queries(images)[::step])


def _name(member: Member, folder: RunFolder) -> str:
    """The member's folder, relative to the ensemble's where it lies in there."""
    path = member.folder.path
    return str(path.relative_to(folder.path) if path.is_relative_to(folder.path) else member.folder)
