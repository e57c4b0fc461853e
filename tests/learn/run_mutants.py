"""Named ways in which a file of a run can be damaged or changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[Path], object]


class Mutant:
    """One change of one file; `kind` names it."""

    def __init__(self, file: str, kind: str, change: Change) -> None:
        self.file, self.kind, self.change = file, kind, change

    def __str__(self) -> str:
        return f"{self.file} {self.kind}"


def rewrite(path: Path, content: bytes) -> None:
    """Replace the content of a file; copies of a run share the unchanged files."""
    path.unlink()
    path.write_bytes(content)


def instead(make: Change) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def content(make: Callable[[bytes], bytes]) -> Change:
    return lambda path: rewrite(path, make(path.read_bytes()))


def flipped(position: float) -> Change:
    def flip(whole: bytes) -> bytes:
        at = int(position * (len(whole) - 1))
        return whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]

    return content(flip)


def cut(part: float) -> Change:
    return content(lambda whole: whole[: int(part * len(whole))])


GENERIC: dict[str, Change] = {
    "deleted": Path.unlink,
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a dangling link": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "emptied": content(lambda whole: b""),
    "zeros": content(lambda whole: bytes(len(whole))),
    "noise": content(lambda whole: np.random.default_rng(0).bytes(len(whole))),
    "doubled": content(lambda whole: whole + whole),
    "null": content(lambda whole: b"null"),
    "a list": content(lambda whole: b"[1]"),
    "an object": content(lambda whole: b"{}"),
    "text": content(lambda whole: b"recall_at_1"),
    "deep": content(lambda whole: b'{"a":' * 100_000),
    **{f"cut at {part}": cut(part) for part in (0.05, 0.5, 0.99)},
    **{f"flipped at {position}": flipped(position) for position in (0.02, 0.3, 0.6, 0.98)},
}
FILES = (
    "one/scores.json",
    "one/embeddings.npy",
    "one/zero_shot.json",
    "one/metrics.jsonl",
    "one/checkpoints/last.pt",
    "one/checkpoints/best.pt",
    "ens/scores.json",
    "ens/members/000/scores.json",
    "ens/members/001/embeddings.npy",
)


def set_to(*keys_and_value: Any) -> Change:
    *keys, last, value = keys_and_value

    def change(path: Path) -> None:
        document = json.loads(path.read_text())
        node = document
        for key in keys:
            node = node[key]
        node[last] = value
        rewrite(path, json.dumps(document).encode())

    return change


def without(key: str) -> Change:
    def change(path: Path) -> None:
        document = json.loads(path.read_text())
        del document[key]
        rewrite(path, json.dumps(document).encode())

    return change


UNFIT: dict[str, tuple[Any, ...]] = {
    "metrics": ([], {}, {"recall_at_1": 7.5}, {"recall_at_1": "x"}, {"recall_at_1": True}),
    "test_images": (0, -1, 12.5, True, "12", 10**9),
    "test_classes": (0, None),
    "embedding_size": (0, 10**9, "8"),
    "selection": ("best", 3, None),
    "seed": (-1, "0", 10**30, 77),
    "method": (3, None, "other"),
    "n": (0, 2, True),
    "curve": (3, [3], [{"recall_at_1": 0.5}], [{}]),
    "parts": ([{}], [3], {"a": 1}),
    "half_width": ({"recall_at_1": -1.0}, {"map_at_r": float("inf")}, {"x": 0.1}),
    "zero_shot": ({"recall_at_1": 7.5}, [0.1]),
    "remarks": ("text", [3]),
    "embeddings_sha256": ("0" * 64, "abc", 3),
    "verification": (3, {}, {"thresholds": {"best_f1": 0.5}, "classes": 1}),
    "no_threshold": (3, None),
    "unknown": (1,),
}


def scores_mutants() -> Iterator[Mutant]:
    file = "one/scores.json"
    for key, values in UNFIT.items():
        for value in values:
            yield Mutant(file, f"{key} = {str(value)[:20]}", set_to(key, value))
    for value in (7.5, -0.1, "x", None, True, float("nan"), float("inf")):
        yield Mutant(file, f"recall {value}", set_to("metrics", "recall_at_1", value))
    for key in ("metrics", "dataset", "test_images", "method", "selection", "seed"):
        yield Mutant(file, f"without {key}", without(key))
    twice = content(lambda whole: whole.replace(b'"n": 1', b'"n": 1, "n": 1'))
    yield Mutant(file, "duplicate key", twice)


def array(make: Callable[[np.ndarray], np.ndarray], older: bool = False) -> Change:
    """Change embeddings; those of an older run have no SHA-256 beside them."""

    def change(path: Path) -> None:
        rows = np.load(path)
        path.unlink()
        np.save(path, make(rows), allow_pickle=True)
        if older:
            set_to("embeddings_sha256", None)(path.with_name("scores.json"))

    return change


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a thousandth": lambda x: x * np.float32(1e-3),
    "of all lengths": lambda x: (x * np.linspace(0.01, 100, len(x))[:, None]).astype(x.dtype),
    "NaN": lambda x: np.where(np.eye(*x.shape) > 0, np.float32(np.nan), x),
    "infinite": lambda x: np.where(np.eye(*x.shape) > 0, np.float32(np.inf), x),
    "huge": lambda x: x * np.float32(1e38),
    "float64": lambda x: x.astype(np.float64),
    "int8": lambda x: x.astype(np.int8),
    "big-endian": lambda x: x.astype(">f4"),
    "objects": lambda x: x.astype(object),
    "names": lambda x: x.astype(str),
    "flat": lambda x: x.reshape(-1),
    "fewer": lambda x: x[:-1],
    "narrower": lambda x: x[:, :-1],
    "scalar": lambda x: np.array(1, np.float32),
}
SOUND_BUT_OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reversed": lambda x: x[::-1],
    "two rows swapped": lambda x: x[[1, 0, *range(2, len(x))]],
    "negated": lambda x: -x,
    "by column": lambda x: np.asfortranarray(x[:, ::-1]),
}


def array_mutants() -> Iterator[Mutant]:
    file = "one/embeddings.npy"
    for kind, make in {**ARRAYS, **SOUND_BUT_OTHERS}.items():
        yield Mutant(file, kind, array(make))
    for kind, make in ARRAYS.items():
        yield Mutant(file, f"{kind}, older", array(make, older=True))


def swapped(other: str) -> Change:
    def change(path: Path) -> None:
        other_path = path.parent / other
        moved = path.with_name("moved")
        path.rename(moved)
        other_path.rename(path)
        moved.rename(other_path)

    return change


def linked(target: str) -> Change:
    def change(path: Path) -> None:
        shutil.rmtree(path)
        path.symlink_to(target)

    return change


SWAPS = (
    ("one/checkpoints/last.pt", "best.pt"),
    ("ens/members/000/scores.json", "../001/scores.json"),
    ("ens/members/000/embeddings.npy", "../001/embeddings.npy"),
    ("ens/members/000/checkpoints/last.pt", "../../001/checkpoints/last.pt"),
    ("ens/members/000", "001"),
)
