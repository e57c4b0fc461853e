"""A comparison of runs as records, for CSV files and data frames."""

from collections.abc import Iterator

from dmlray.printable import printable
from dmlray.results.comparison import Comparison
from dmlray.results.paired_tests import ComparedRun, TestedPair


def comparison_records(comparison: Comparison) -> Iterator[dict[str, object]]:
    """Rows of all groups; names are printable, metrics are fractions."""
    for number, group in enumerate(comparison.groups, 1):
        for rank, run in enumerate(group.runs, 1):
            yield {"row": "run", "group": number, "rank": rank, **_record(run)}
        for pair in group.pairs:
            yield {"row": "difference", "group": number, **_tested(pair, comparison.metric)}
    for row in comparison.published or ():
        yield {
            "row": "published",
            "run": printable(row.run.name),
            "method": printable(row.run.scores.method),
            **row.published.scores,
            "remark": printable("; ".join([row.published.source, *row.differs])),
        }


def _record(run: ComparedRun) -> dict[str, object]:
    scores = run.scores
    protocol = {name: printable(value) for name, value in run.protocol.items()}
    half = {f"{name}_half_width": value for name, value in scores.half_width.items()}
    names = {"run": printable(run.name), "method": printable(scores.method)}
    return {**names, **protocol, **scores.metrics, **half}


def _tested(pair: TestedPair, metric: str) -> dict[str, object]:
    found = pair.difference
    names = {"run": printable(pair.better.name), "than": printable(pair.worse.name)}
    if found is None:
        return {**names, "remark": printable(f"not tested: {pair.reason}")}
    numbers = {"low": found.low, "high": found.high, "p": found.p, "p_holm": pair.corrected}
    by = {"paired_by": pair.paired_by, "pairs": found.pairs, "significant": said(pair)}
    return {**names, "metric": metric, "difference": found.value, **numbers, **by}


def said(pair: TestedPair) -> str:
    """Whether the difference is significant, as the tables say it."""
    return "significant" if pair.significant else "not significant"
