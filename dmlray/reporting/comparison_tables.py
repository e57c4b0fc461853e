"""A comparison of runs as text, Markdown, LaTeX, CSV or HTML."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

from dmlray.evaluation.metrics import label, tabled
from dmlray.evaluation.significance import RESAMPLES
from dmlray.printable import printable
from dmlray.reporting.comparison_records import comparison_records, said
from dmlray.reporting.pages import render
from dmlray.results.comparison import Comparison, Group, PublishedRow
from dmlray.results.paired_tests import ComparedRun, TestedPair
from dmlray.scores import percent

_FEW_CLASSES = 20  # below which a percentile interval covers clearly less than it says
_NAMES = 2  # columns of text, the others are numbers
_ESCAPES = {ord(c): rf"\{c}" for c in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("±"): r"$\pm$",
}


@dataclass(frozen=True)
class Section:
    """A table with a title, and lines below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    lines: list[str]


def sections(comparison: Comparison) -> list[Section]:
    """One section for each protocol, then the published scores."""
    metrics = _metrics(comparison)
    head = ["rank", "run", "method", *map(label, metrics)]
    found = [
        Section(_title(comparison, number), head, _rows(group, metrics), _lines(comparison, group))
        for number, group in enumerate(comparison.groups, 1)
    ]
    if comparison.published is not None:
        found.append(_published(comparison.published))
    return found


def as_text(comparison: Comparison) -> str:
    """Aligned columns."""
    return "\n\n".join(
        "\n".join([part.title, *_aligned([part.head, *part.rows]), *part.lines])
        for part in sections(comparison)
    )


def as_markdown(comparison: Comparison) -> str:
    """A table of GitHub's Markdown for each section."""
    return "\n\n".join(
        "\n\n".join([_marked(part.title), "\n".join(_piped(part)), _listed(part.lines)]).strip()
        for part in sections(comparison)
    )


def as_latex(comparison: Comparison) -> str:
    """A tabular for each section, with its lines as comments."""
    return "\n\n".join("\n".join(_tabular(part)) for part in sections(comparison))


def as_csv(comparison: Comparison) -> str:
    """One table: runs, published scores and differences, as fractions."""
    records = list(comparison_records(comparison))
    names = dict.fromkeys(name for record in records for name in record)
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def as_html(comparison: Comparison) -> str:
    """One self-contained page."""
    title = f"Comparison of {sum(len(group.runs) for group in comparison.groups)} runs"
    return render("comparison.html", title=title, sections=sections(comparison)).rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text,
    "md": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "html": as_html,
}


def _metrics(comparison: Comparison) -> list[str]:
    runs = [run for group in comparison.groups for run in group.runs]
    shown = tabled(name for run in runs for name in run.scores.metrics)
    return shown if comparison.metric in shown else [comparison.metric, *shown]


def _title(comparison: Comparison, number: int) -> str:
    group = comparison.groups[number - 1]
    protocol = "; ".join(
        value if name == "data set" else f"{name} {value}" for name, value in group.protocol.items()
    )
    return printable(f"Protocol {number}: {protocol}; %")


def _rows(group: Group, metrics: Sequence[str]) -> list[list[str]]:
    return [
        [
            str(rank),
            printable(run.name),
            printable(run.scores.method),
            *(_cell(run, name) for name in metrics),
        ]
        for rank, run in enumerate(group.runs, 1)
    ]


def _cell(run: ComparedRun, name: str) -> str:
    half = run.scores.half_width
    return percent(run.scores.metrics, name) + (f" ± {percent(half, name)}" if half else "")


def _lines(comparison: Comparison, group: Group) -> list[str]:
    differs = comparison.differs(group)
    lines = [f"not ranked with protocol 1: {'; '.join(differs)}"] if differs else []
    lines += [_pair(pair, comparison.metric) for pair in group.pairs]
    if any(pair.paired_by == "seed" for pair in group.pairs):
        lines.append("paired by seed: Student's t test on the differences of equal seeds")
    if any(pair.paired_by == "test class" for pair in group.pairs):
        lines.append(
            f"paired by test class: bootstrap over classes, {RESAMPLES:,} resamples; it covers "
            "the choice of test classes, not the spread between trainings"
        )
    by_class = [p.difference for p in group.pairs if p.difference and p.paired_by == "test class"]
    if any(found.pairs < _FEW_CLASSES for found in by_class):
        lines.append(f"fewer than {_FEW_CLASSES} test classes: intervals are likely too narrow")
    if any(pair.difference for pair in group.pairs):
        lines.append("p is Holm-corrected for all tests here; each interval stands alone")
    return list(map(printable, lines))


def _pair(pair: TestedPair, metric: str) -> str:
    names, found = f"{pair.better.name} - {pair.worse.name}", pair.difference
    if found is None:
        return f"{names}: not tested ({pair.reason})"
    low, high = (f"{100 * value:+.1f}" for value in (found.low, found.high))
    return (
        f"{names}: {label(metric)} {100 * found.value:+.1f} (95 % interval {low} to {high}), "
        f"p = {pair.corrected:.2g}, {found.pairs} pairs by {pair.paired_by}: {said(pair)}"
    )


def _published(rows: Sequence[PublishedRow]) -> Section:
    metrics = tabled(name for row in rows for name in row.published.scores)
    table = [
        [
            "-",
            printable(f"published, for {row.run.name}"),
            printable(row.run.scores.method),
            *(percent(row.published.scores, name) for name in metrics),
        ]
        for row in rows
    ]
    lines = [
        printable(f"{row.run.name}: {row.published.source}. Differs: {'; '.join(row.differs)}")
        for row in rows
    ]
    lines = lines or ["none for these methods on these data sets"]
    head = ["rank", "run", "method", *map(label, metrics)]
    return Section("Published scores, not ranked; %", head, table, lines)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in range(1, _NAMES + 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _piped(part: Section) -> list[str]:
    rule = ["---:" if n not in range(1, _NAMES + 1) else "---" for n in range(len(part.head))]
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
    yield rf"\begin{{tabular}}{{rll{'r' * (len(part.head) - _NAMES - 1)}}}"
    yield r"\hline"
    for number, row in enumerate([part.head, *part.rows]):
        yield " & ".join(cell.translate(_ESCAPES) for cell in row) + r" \\"
        if not number:
            yield r"\hline"
    yield r"\hline"
    yield r"\end{tabular}"
    yield from (f"% {line}" for line in part.lines)
