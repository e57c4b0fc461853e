"""A run folder, as messages name it."""

import shlex
import subprocess
from pathlib import Path

import pytest

from dmlray.plans.run_folder import RunFolder

NAMES = [
    "runs/a",
    "lr=1?a",
    "a b",
    "it's",
    'a"b',
    "$HOME",
    "a;b",
    "[x]*",
    "-x",
    "--resume",
    "a\nb",
    "é",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_to_type_is_one_word_of_a_shell_and_no_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = RunFolder(Path(name)).typed
    assert shlex.split(typed)[0].removeprefix("./") == name
    assert not typed.startswith("-")
    told = subprocess.run(["sh", "-c", f"printf %s {typed}"], capture_output=True, text=True)
    assert told.stdout.removeprefix("./") == name
