"""Tables with titles and remarks, as text, Markdown, LaTeX or records of CSV."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

_NAMES = 2  # columns of text after the first, where nothing else is said
_ESCAPES = {ord(c): rf"\{c}" for c in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("±"): r"$\pm$",
}


@dataclass(frozen=True)
class Section:
    """A table with a title, and lines below it.

    `names` are the columns of text after the first one; all others are numbers.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    lines: list[str]
    names: int = _NAMES


def as_text(sections: Sequence[Section]) -> str:
    """Aligned columns."""
    return "\n\n".join("\n".join([part.title, *_aligned(part), *part.lines]) for part in sections)


def as_markdown(sections: Sequence[Section]) -> str:
    """A table of GitHub's Markdown for each section."""
    return "\n\n".join(
        "\n\n".join([_marked(part.title), "\n".join(_piped(part)), _listed(part.lines)]).strip()
        for part in sections
    )


def as_latex(sections: Sequence[Section]) -> str:
    """A tabular for each section, with its lines as comments."""
    return "\n\n".join("\n".join(_tabular(part)) for part in sections)


def as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """One table with a column for each key of the records."""
    names = dict.fromkeys(name for record in records for name in record)
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def _aligned(part: Section) -> list[str]:
    table = [part.head, *part.rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in range(1, part.names + 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _piped(part: Section) -> list[str]:
    rule = ["---:" if n not in range(1, part.names + 1) else "---" for n in range(len(part.head))]
    rows = [part.head, rule, *(list(map(_marked, row)) for row in part.rows)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _marked(text: str) -> str:
    """Escape what is markup in Markdown, HTML included."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|":
        text = text.replace(character, f"\\{character}")
    return text


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_marked(line)}" for line in lines)


def _tabular(part: Section) -> Iterator[str]:
    yield f"% {part.title}"
    numbers = "r" * (len(part.head) - part.names - 1)
    yield rf"\begin{{tabular}}{{r{'l' * part.names}{numbers}}}"
    yield r"\hline"
    for number, row in enumerate([part.head, *part.rows]):
        yield " & ".join(cell.translate(_ESCAPES) for cell in row) + r" \\"
        if not number:
            yield r"\hline"
    yield r"\hline"
    yield r"\end{tabular}"
    yield from (f"% {line}" for line in part.lines)
