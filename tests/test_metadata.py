"""What the project says of itself agrees with itself."""

import re
from pathlib import Path

import yaml

import dmlray
from dmlray import methods

ROOT = Path(__file__).parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_release_to_cite_is_the_newest_of_the_changelog() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1] == f"{CITATION['version']} - {CITATION['date-released']}"
    assert dmlray.__version__ != CITATION["version"], "what is unreleased has a version of its own"


def test_every_method_has_a_paper_to_cite() -> None:
    notes = " ".join(reference["notes"] for reference in CITATION["references"])
    assert set(methods.names()) <= set(re.findall(r"method (\w+)", notes))
