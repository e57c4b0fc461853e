"""Write score tables into documents from the results of a benchmark.

`python -m dmlray.reporting.score_tables README.md docs/reality_check.md` fills each part of a
document between `<!-- scores: FOLDER -->`, or `<!-- leaderboard: FOLDER -->`, and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

from dmlray.atomic_files import write_text
from dmlray.reporting.leaderboard_tables import leaderboard_sections, summary
from dmlray.reporting.sections import as_markdown
from dmlray.results.leaderboard import read_leaderboard

_PART = re.compile(
    r"(?P<begin><!-- (?P<kind>scores|leaderboard): (?P<folder>[^ ]+) -->\n).*?"
    r"(?P<end><!-- end -->)",
    re.DOTALL,
)


def filled(text: str, root: Path = Path()) -> str:
    """Return the document with its tables made again.

    Args:
        text: Markdown; `scores` is the table over all data sets, `leaderboard` all tables.
        root: What the folders of results are relative to.

    Raises:
        DmlrayError: If a folder has no results or damaged ones.
    """

    def table(part: re.Match[str]) -> str:
        found = read_leaderboard(root / part["folder"])
        sections = [summary(found)] if part["kind"] == "scores" else leaderboard_sections(found)
        return f"{part['begin']}\n{as_markdown(sections)}\n\n{part['end']}"

    return _PART.sub(table, text)


def folders(text: str) -> list[str]:
    """Folders of results that a document has tables of."""
    return [part["folder"] for part in _PART.finditer(text)]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_text(Path(name), filled(Path(name).read_text(encoding="utf-8")))
