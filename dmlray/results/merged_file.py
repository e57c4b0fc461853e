"""What a merge became: the members that it took and its projection, enough to embed other images.

A safetensors file: `mean` (S,) and `directions` (S, P) in float64 where there is a projection; its
metadata lists the members.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save

from dmlray.atomic_files import whole_file
from dmlray.errors import DataError
from dmlray.evaluation.pca import Projection
from dmlray.file_reading import open_regular, parse_json, reason
from dmlray.json_schema import Sha256, Spread, Text, checked
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import Member, training_of


@dataclass(frozen=True)
class _Entry:
    """A member: its folder, the factor of its cosines, and which embeddings were merged."""

    run: Text
    weight: Spread
    embeddings_sha256: Sha256 | None


_ENTRIES = TypeAdapter(list[_Entry])


def write_merged(path: Path, members: Sequence[Member], projection: Projection | None) -> None:
    """Write the members in their order, and the projection of their embeddings side by side."""
    tensors = {}
    if projection:
        tensors = {"mean": projection.mean, "directions": projection.directions.contiguous()}
    entries = [
        asdict(_Entry(str(one.folder.path), one.weight, one.scores.embeddings_sha256))
        for one in members
    ]
    packed = save(tensors, metadata={"members": json.dumps(entries)})
    with whole_file(path) as temporary:
        temporary.write_bytes(packed)


def read_merged(folder: RunFolder) -> tuple[list[Member], Projection | None]:
    """The members of a finished merge as they were merged, and its projection.

    Raises:
        DataError: If the file is missing or damaged, or a member has changed since.
    """
    path = folder.merged
    try:
        open_regular(path).close()
        with safe_open(str(path), "pt") as file:
            entries = checked(_ENTRIES, parse_json((file.metadata() or {})["members"].encode()))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        projection = Projection(**tensors) if tensors else None
    except FileNotFoundError:
        mend = "resume the merge to make it"
        raise DataError(f"{path}: no such file, as in merges of older versions; {mend}") from None
    except Exception as error:  # safetensors has kinds of its own
        why = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        mend = "delete it and resume the merge to make it again"
        raise DataError(f"{path}: is damaged ({why.splitlines()[0]}); {mend}") from None
    return [_member(path, entry) for entry in entries], projection


def _member(path: Path, entry: _Entry) -> Member:
    member = training_of(RunFolder(Path(entry.run)), entry.weight)
    if member.scores.embeddings_sha256 != entry.embeddings_sha256:
        raise DataError(f"{path}: {member.folder} was trained again since; merge the runs again")
    return member
