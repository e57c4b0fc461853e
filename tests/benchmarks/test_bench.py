"""`make bench` runs whatever there is, and the README knows all of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path("benchmarks")


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_a_script_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("raise SystemExit('wrong')")
    (tmp_path / "second.py").write_text("print('RATIO second 2')")
    scripts = f"BENCHMARKS={tmp_path}/first.py {tmp_path}/second.py"
    python = f"BIN={Path(sys.executable).parent}"
    command = ["make", "-o", ".venv/installed", "bench", scripts, python]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode != 0
    assert f"failed: {tmp_path}/first.py\n" in found.stderr
    said = found.stdout.splitlines()
    assert "RATIO second 2" in said
    assert sum(" took " in line and line.endswith(" s") for line in said) == 2


def test_the_readme_lists_every_script() -> None:
    listed = (FOLDER / "README.md").read_text()
    scripts = [file.name for file in FOLDER.glob("[!_]*.py")]
    assert scripts
    assert all(f"| `{name}` |" in listed for name in scripts)
