"""A comparison of runs as text, Markdown, LaTeX, CSV or HTML."""

from collections.abc import Callable, Sequence

from dmlray.evaluation.metrics import label, tabled
from dmlray.evaluation.significance import RESAMPLES
from dmlray.printable import printable
from dmlray.reporting import sections as tables
from dmlray.reporting.comparison_records import comparison_records, said
from dmlray.reporting.pages import render
from dmlray.reporting.sections import Section
from dmlray.results.comparison import Comparison, Group, PublishedRow
from dmlray.results.paired_tests import ComparedRun, TestedPair
from dmlray.scores import percent

_FEW_CLASSES = 20  # below which a percentile interval covers clearly less than it says


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


def as_csv(comparison: Comparison) -> str:
    """One table: runs, published scores and differences, as fractions."""
    return tables.as_csv(list(comparison_records(comparison)))


def as_html(comparison: Comparison) -> str:
    """One self-contained page."""
    title = f"Comparison of {sum(len(group.runs) for group in comparison.groups)} runs"
    return render("comparison.html", title=title, sections=sections(comparison)).rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": lambda comparison: tables.as_text(sections(comparison)),
    "md": lambda comparison: tables.as_markdown(sections(comparison)),
    "latex": lambda comparison: tables.as_latex(sections(comparison)),
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
