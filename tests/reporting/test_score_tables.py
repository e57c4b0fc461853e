"""Tables of scores in documents are those of the results in the repository."""

import re
from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.reporting.score_tables import filled, folders
from tests.results.test_leaderboard import cell

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_the_tables_of_the_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert filled(text, ROOT) == text, "run `make tables`"


def test_all_results_are_in_a_document_that_make_tables_writes() -> None:
    results = {f"results/{path.name}" for path in (ROOT / "results").glob("*/")}
    shown = {path for path in DOCUMENTS if folders(path.read_text(encoding="utf-8"))}
    named = {name for path in shown for name in folders(path.read_text(encoding="utf-8"))}
    assert results == named
    written = re.search(r"^SCORED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert shown <= {ROOT / name for name in written.split()}


def test_a_part_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    for method, level in (("a_1", 0.3), ("b", 0.5)):
        cell(method, level).write(tmp_path / "results")
    text = "# Title\n<!-- scores: results -->\nold 99.9\n<!-- end -->\nrest\n"
    found = filled(text, tmp_path)
    assert "| 1.00 | b | 50.0 ± 0.3 (1) |" in found
    assert r"a\_1" in found
    assert "99.9" not in found
    assert found.startswith("# Title\n<!-- scores: results -->\n")
    assert found.endswith("<!-- end -->\nrest\n")
    assert filled(found, tmp_path) == found
    more = filled(text.replace("scores:", "leaderboard:"), tmp_path)
    assert "settings that won" in more


def test_results_that_are_missing_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no results of a benchmark"):
        filled("<!-- scores: none -->\n<!-- end -->", tmp_path)
