"""Read regular files of bounded size and strict JSON; anything else is an error with a reason."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlray.file_reading import parse_json, read_bytes, read_json, sha256


def test_the_bytes_of_a_regular_file_and_of_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "file", most=3) == b"abc" == read_bytes(tmp_path / "link")
    with pytest.raises(ValueError, match="Allowed: "):
        read_bytes(tmp_path / "file", most=2)


def test_the_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 500_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 500_000).hexdigest()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("/nowhere"), "No such file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: os.mkfifo(path), "a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    ],
)
def test_a_path_that_is_not_a_regular_file_is_an_os_error(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "file")
    with pytest.raises(OSError, match=reason):
        read_bytes(tmp_path / "file")


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"a": [1, 2.5, null, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "file") == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not JSON"),
        (b'{"a": ', "is not JSON: Expecting value at line 1 column 7"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b'{"a": 1, "a": 2}', "a duplicate key"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b"9" * 100_000, "digits"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_anything_else_is_refused_with_a_reason_in_one_line(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
