"""What a Ray of one's own needs of the machine is known before it starts, and named."""

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlray.cluster import local_ray
from dmlray.cluster.local_ray import LONGEST_BASE, check_open_files, folder_for_ray
from dmlray.errors import ResourceError


@pytest.mark.parametrize("limit", [0, 64, 256, 511])
def test_too_few_open_files_are_refused_with_the_number(limit: int) -> None:
    with pytest.raises(ResourceError, match=f"{limit} open files are too few.*at least 512"):
        check_open_files(limit)


@pytest.mark.parametrize("limit", [512, 1024, 1 << 20, resource.RLIM_INFINITY])
def test_enough_open_files_are_enough(limit: int) -> None:
    check_open_files(limit)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def only(monkeypatch: pytest.MonkeyPatch, short: Path) -> pytest.MonkeyPatch:
    """No folder but those that the test names, and `short / "last"` in the place of /tmp."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(local_ray, "_LAST", str(short / "last"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short / "last"))
    (short / "last").mkdir()
    return monkeypatch


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_lies_where_the_user_says(only: pytest.MonkeyPatch, short: Path, variable: str) -> None:
    (short / "named").mkdir()
    only.setenv(variable, str(short / "named"))
    with folder_for_ray() as folder:
        assert folder.parent == short / "named"


@pytest.mark.parametrize("kind", ["long", "missing", "file", "shared", "link"])
def test_a_folder_that_does_not_serve_is_passed_over(
    only: pytest.MonkeyPatch, short: Path, tmp_path: Path, kind: str
) -> None:
    only.setenv("TMPDIR", str(unusable(short, kind)))
    with folder_for_ray() as folder:
        assert folder.parent == short / "last"


def test_where_none_serves_each_is_named_with_its_reason(
    only: pytest.MonkeyPatch, short: Path
) -> None:
    only.setenv("RAY_TMPDIR", str(unusable(short, "long")))
    only.setenv("TMPDIR", str(unusable(short, "shared")))
    (short / "last").rmdir()
    with pytest.raises(ResourceError) as caught, folder_for_ray():
        pass
    for part in ("has a path of", "belongs to other users", "is no folder", "Set RAY_TMPDIR"):
        assert part in str(caught.value)


def unusable(short: Path, kind: str) -> Path:
    path = short / ("x" * LONGEST_BASE if kind in ("long", "link") else kind)
    if kind == "file":
        path.touch()
    elif kind != "missing":
        path.mkdir()
    if kind == "shared":
        path.chmod(0o777)
    if kind == "link":  # its own path is short
        (short / "l").symlink_to(path)
        return short / "l"
    return path
