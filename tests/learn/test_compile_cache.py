"""torch runs the code in its compile cache, which must belong to this user."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dmlray.learn.compile_cache import set_compile_cache

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"torchinductor_{os.getuid()}"


def test_it_is_in_the_temporary_folder_and_closed_to_others(temporary: Path) -> None:
    set_compile_cache()
    assert os.environ[VARIABLE] == str(temporary)
    assert temporary.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["file", "link", "link to a folder", "open to all", "of another"])
def test_a_folder_of_another_user_is_not_used(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path, kind: str
) -> None:
    make(temporary, kind)
    if kind == "of another":
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        temporary.rename(tmp_path / f"torchinductor_{uid + 1}")
    set_compile_cache()
    used = Path(os.environ[VARIABLE])
    assert (used.is_dir() and used.parent != Path(tempfile.gettempdir())) or kind == "of another"
    assert not used.samefile(tmp_path / "planted")


def test_the_users_setting_is_kept(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv(VARIABLE, "named")
    set_compile_cache()
    assert os.environ[VARIABLE] == "named"
    assert not temporary.exists()


def make(path: Path, kind: str) -> None:
    planted = path.parent / "planted"
    planted.mkdir()
    if kind == "file":
        path.touch()
    elif kind.startswith("link"):
        path.symlink_to(planted if "folder" in kind else path.parent / "nowhere")
    else:
        path.mkdir()
        path.chmod(0o777 if "open" in kind else 0o755)


def test_a_file_in_its_place_does_not_end_the_first_step_of_an_optimizer(tmp_path: Path) -> None:
    for name in (f"torchinductor_{os.getuid()}", "torchinductor_somebody"):
        (tmp_path / name).touch()
    program = """
import dmlray.learn, torch
weight = torch.nn.Parameter(torch.ones(2))
weight.grad = torch.ones(2)
torch.optim.Adam([weight]).step()
"""
    variables = {**os.environ, "TMPDIR": str(tmp_path), "LOGNAME": "somebody"}
    variables |= {"DMLRAY_CACHE": str(tmp_path / "cache"), "USER": "somebody"}
    variables.pop(VARIABLE, None)
    subprocess.run([sys.executable, "-c", program], env=variables, check=True, timeout=120)
