"""The thresholds of a report: table and histograms, or one sentence."""

import numpy as np
from matplotlib.patches import StepPatch

from dmlray.evaluation.verification import Rate, Threshold, Verification
from dmlray.reporting.figures import cosine_histograms
from dmlray.reporting.run_report import page
from tests.reporting.test_run_report import Reader, scores

THRESHOLD = Threshold(0.5, 0.001, 0.25, Rate(0.002, 0.001, 0.004), Rate(0.3, 0.2, 0.4))
FOUND = Verification(
    thresholds={"fmr_1e-3": THRESHOLD, "best_f1": THRESHOLD},
    classes=3, images=9, positives=18, negatives=5400,
    positive_counts=[0] * 64 + [6] * 3 + [0] * 61, negative_counts=[0] * 60 + [1350] * 4 + [0] * 64,
)  # fmt: skip


def test_the_page_has_a_row_for_each_threshold_and_both_histograms() -> None:
    text = page("run", scores(verification=FOUND))
    assert ["FMR 0.1 %", "0.5000", "0.1", "25", "0.2 (0.1 to 0.4)", "30 (20 to 40)"] in Reader(
        text
    ).rows
    assert len(Reader(text).addresses) == 2
    assert "Too few comparisons for an FMR of 1 %, 0.01 %." in text


def test_the_histograms_are_shares_of_each_kind_with_the_thresholds() -> None:
    (axes,) = cosine_histograms(FOUND).axes
    drawn = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    (negative, _, _), (positive, edges, _) = (patch.get_data() for patch in drawn)
    assert (positive.sum(), negative.sum()) == (1, 1)
    assert positive[65] == 1 / 3
    assert (edges[64], edges[67]) == (0, 3 / 64)
    assert [np.asarray(line.get_xdata())[0] for line in axes.lines] == [0.5, 0.5]


def test_without_thresholds_the_page_says_why_and_escapes_it() -> None:
    text = page("run", scores(no_threshold="a <b> of old"))
    assert "There is none: a &lt;b&gt; of old." in text
    assert len(Reader(text).addresses) == 1
    assert "scored by a version without thresholds" in page("run", scores())
