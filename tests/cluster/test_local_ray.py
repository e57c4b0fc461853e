"""Requirements of a private Ray are checked before it starts, with messages that name them."""

import resource
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlray.cluster import local_ray
from dmlray.cluster.address import raylets
from dmlray.cluster.local_ray import LONGEST_BASE, check_open_files, folder_for_ray
from dmlray.cluster.reaper import writers
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
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, short: Path) -> pytest.MonkeyPatch:
    """Only the folders of the test, with `short / "last"` in place of /tmp."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(local_ray, "_LAST", str(short / "last"))
    (short / "last").mkdir()
    return monkeypatch


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_uses_the_folder_of_the_user(
    only: pytest.MonkeyPatch, short: Path, variable: str
) -> None:
    (short / "named").mkdir()
    only.setenv(variable, str(short / "named"))
    with folder_for_ray() as folder:
        assert folder.parent == short / "named"


@pytest.mark.parametrize("kind", ["long", "missing", "file", "shared", "link"])
def test_an_unsuitable_folder_is_skipped(only: pytest.MonkeyPatch, short: Path, kind: str) -> None:
    only.setenv("TMPDIR", str(unusable(short, kind)))
    with folder_for_ray() as folder:
        assert folder.parent == short / "last"


def test_if_none_is_suitable_each_is_named_with_its_reason(
    only: pytest.MonkeyPatch, short: Path
) -> None:
    only.setenv("RAY_TMPDIR", str(unusable(short, "long")))
    only.setenv("TMPDIR", str(unusable(short, "file")))
    (short / "last").rmdir()
    with pytest.raises(ResourceError) as caught, folder_for_ray():
        pass
    for part in ("has a path of", "file is not a folder", "last is not a folder", "Set RAY_TMPDIR"):
        assert part in str(caught.value)


def test_a_folder_open_to_all_is_used_if_there_is_no_other(
    only: pytest.MonkeyPatch, short: Path
) -> None:
    """A container's /tmp may be one."""
    (short / "last").chmod(0o777)
    with folder_for_ray() as folder:
        assert folder.parent == short / "last"


def unusable(short: Path, kind: str) -> Path:
    path = short / ("x" * LONGEST_BASE if kind in ("long", "link") else kind)
    if kind == "file":
        path.touch()
    elif kind != "missing":
        path.mkdir()
    if kind == "shared":
        path.chmod(0o777)
    if kind == "link":  # the path of the link is short
        (short / "l").symlink_to(path)
        return short / "l"
    return path


PROGRAM = """
import os, time, ray
from dmlray.cluster.session import session

@ray.remote
def work():
    print("ready")
    time.sleep(99)

with session():
    running = work.remote()
    time.sleep(1)
    print(os.environ["RAY_AUTH_MODE"], flush=True)
    time.sleep(99)
"""


@pytest.mark.slow
def test_a_private_ray_is_closed_to_others_and_does_not_outlive_its_driver(
    environment: dict[str, str], tmp_path: Path
) -> None:
    from ray._private.services import psutil

    base, home = Path(environment["RAY_TMPDIR"]), tmp_path / "home"
    home.mkdir()
    variables = {**environment, "HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "token\n"
            (folder,) = base.glob("dml-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert not list(home.rglob("*token*"))
            assert any(node.folder.parent == folder for node in raylets())
            names = set()
            for number in writers(folder):
                process = psutil.Process(number)
                if any(found.status == "LISTEN" for found in process.net_connections("tcp")):
                    names.add(process.cmdline()[0].rpartition("/")[2].split("(")[0])
            assert names <= {
                "gcs_server",
                "raylet",
                "ray::RuntimeEnvAgent",
                "ray::IDLE",
                "ray::work",
            }
        finally:
            driver.kill()
    end = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < end, f"outlive the driver: {writers(folder)}"
        time.sleep(0.2)
    assert not any(node.folder.parent == folder for node in raylets())
