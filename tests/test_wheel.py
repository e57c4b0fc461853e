"""The wheel alone: what it contains, and that its files are found from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")
FOLDERS = ("dmlray", "experiments", "searches", "benchmark_plans")
REFUSED = """
import json, dmlray
from click.testing import CliRunner
from dmlray.cli import main
words = [(command, "proxy_ancor_demo") for command in ("train", "tune")]
answers = [CliRunner().invoke(main, pair) for pair in words]
print(json.dumps([dmlray.__file__, *((found.exit_code, found.output) for found in answers)]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built from a copy: a build leaves files beside sources."""
    copy, wheels, site = (tmp_path_factory.mktemp(name) for name in ("copy", "wheels", "site"))
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(wheels)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(copy)], check=True)
    zipfile.ZipFile(next(wheels.glob("dmlray-*.whl"))).extractall(site)
    return site


def python(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_holds_every_experiment_search_and_licence(site: Path) -> None:
    for folder in FOLDERS[1:]:
        ours, theirs = ROOT / folder, site / "dmlray" / folder
        names = {path.name for path in ours.glob("*.yaml")}
        assert names
        assert names == {path.name for path in theirs.iterdir()}
    licences = {path.name for path in site.glob("dmlray-*.dist-info/licenses/*")}
    assert licences == {"LICENSE", "NOTICE"}
    assert (site / "dmlray" / "py.typed").exists()


def test_plans_are_found_by_name_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    shown = python(site, tmp_path, "-m", "dmlray", "show", "proxy_anchor_demo")
    assert shown.returncode == 0, shown.stderr
    assert "efficientnet_lite0" in shown.stdout
    answers = python(site, tmp_path, "-c", REFUSED)
    assert answers.returncode == 0, answers.stderr
    package, *refused = json.loads(answers.stdout)
    assert Path(package).is_relative_to(site)
    for kind, (status, text) in zip(("experiment", "search"), refused, strict=True):
        assert (status, text.count("\n")) == (2, 1), text
        assert f"no such file or {kind} of dmlray. Did you mean proxy_anchor_demo" in text
    assert not list(tmp_path.iterdir())
