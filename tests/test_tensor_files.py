"""Read sound tensor files; refuse anything else with a reason, executing nothing."""

import io
import os
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors
from torch import nn

from dmlray.tensor_files import read_tensors, unusable

WEIGHTS = nn.Linear(3, 3).state_dict()


def packed(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def packed_again(change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The zip of `WEIGHTS` with correct checksums and `change(name, data)` as its entries."""
    source, target = zipfile.ZipFile(io.BytesIO(packed(WEIGHTS))), io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return target.getvalue()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def name_of(value: str | bytes) -> str:
    """An id that is equal in every process: weights are random."""
    return value if isinstance(value, str) else "content"


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("w.pt", packed(WEIGHTS)),
        ("w.pth", packed(WEIGHTS, zipped=False)),
        ("w.safetensors", safetensors(WEIGHTS)),
        ("of_another_name.safetensors", packed(WEIGHTS)),
        ("of_another_name.bin", safetensors(WEIGHTS)),
        ("of_another_name.pth", safetensors(WEIGHTS)),
    ],
    ids=name_of,
)
def test_tensors_of_each_format_are_read(tmp_path: Path, name: str, whole: bytes) -> None:
    (tmp_path / name).write_bytes(whole)
    torch.testing.assert_close(dict(read_tensors(tmp_path / name)), dict(WEIGHTS), rtol=0, atol=0)


WHOLE, TENSORS = packed(WEIGHTS), safetensors(WEIGHTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pt", b""),
        ("half.pt", WHOLE[: len(WHOLE) // 2]),
        ("cut.pt", WHOLE[:-10]),
        ("zeros.pt", bytes(len(WHOLE))),
        ("start_only.pt", WHOLE[:4] + bytes(3000)),
        ("text.pt", b"learner and progress"),
        ("page.pth", b"<html>" * 100),
        ("cut.pth", packed(WEIGHTS, zipped=False)[:-20]),
        ("flipped.pt", WHOLE.replace(b"weight", b"weighs", 1)),
        ("deflated.pt", packed_again(lambda name, data: data, zipfile.ZIP_DEFLATED)),
        ("short.pt", packed_again(lambda name, data: data[:4] if "data/" in name else data)),
        ("malicious.pt", packed({"weight": Malicious()})),
        ("malicious.pth", packed({"weight": Malicious()}, zipped=False)),
        ("pickle.pt", pickle.dumps(Malicious())),
        ("module.pt", packed(nn.Linear(3, 3))),
        ("array.pt", packed({"weight": np.zeros(3)})),
        ("empty.safetensors", b""),
        ("cut.safetensors", TENSORS[:-5]),
        ("length.safetensors", b"\xff" * 8 + TENSORS[8:]),
        ("offsets.safetensors", TENSORS.replace(b"[0,", b"[9,").replace(b",12]", b",99]")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused_with_a_reason_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # any reason, checked below
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not Path("executed").exists()


def test_values_that_are_not_weights_have_a_reason() -> None:
    assert unusable(torch.zeros(2)) is None
    assert unusable(nn.Parameter(torch.zeros(2))) is None
    assert unusable(1.0) == "is not a tensor (float)"
    assert unusable(torch.zeros(2).to_sparse()) == "is not dense"
    assert unusable(torch.zeros(2, device="meta")) == "has no data (device meta)"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "Git LFS"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"", "empty"),
        (b'{"error": "not found"}', "JSON"),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_in_place_of_weights_are_named(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        read_tensors(tmp_path / name)


def test_arguments_of_a_training_beside_its_weights_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "args": Namespace(lr=0.1)}, tmp_path / "w.pth.tar")
    assert read_tensors(tmp_path / "w.pth.tar")["args"].lr == 0.1
