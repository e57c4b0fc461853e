"""The section of a report on thresholds: table, figure, or why there are none."""

from typing import Any

from dmlray.reporting import figures
from dmlray.reporting.pages import png_address
from dmlray.scores import Scores, threshold_table, threshold_words, why_no_threshold


def threshold_section(scores: Scores) -> dict[str, Any]:
    """The values that threshold.html shows."""
    found = scores.verification
    if found is None:
        return {"text": f"There is none: {why_no_threshold(scores)}.", "head": [], "rows": []}
    head, rows = threshold_table(found)
    figure = png_address(figures.png(figures.cosine_histograms(found)))
    return {"text": threshold_words(found), "head": head, "rows": rows, "figure": figure}
