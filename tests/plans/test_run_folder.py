"""A run folder: a path of Python, and what it holds."""

import os
from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder


def test_a_run_folder_is_a_path_that_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("run"))
    assert str(folder) == "run"
    assert os.fspath(folder) == str(tmp_path / "run")
    monkeypatch.chdir("/")
    assert os.fspath(folder) == str(tmp_path / "run")


def test_the_plan_says_what_was_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match="is not a run folder: it holds no plan"):
        folder.kind()
    folder.plan("repeat").touch()
    assert folder.kind() == "repeat"
