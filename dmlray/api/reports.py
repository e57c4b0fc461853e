"""The functions behind `dmlray compare` and `dmlray report`: nothing is trained."""

from collections.abc import Sequence
from pathlib import Path

from dmlray.api.run_results import ComparisonResult
from dmlray.api.run_setup import path_of
from dmlray.errors import ConfigError
from dmlray.learn.class_split import listed_once
from dmlray.reporting.progress import Shown, shown
from dmlray.results.comparison import compare_runs


def compare(
    runs: Sequence[str | Path],
    *,
    sort: str | None = None,
    published: bool = False,
    display: Shown = "auto",
) -> ComparisonResult:
    """Compare finished runs: ranked within each protocol, with paired significance tests.

    Runs of several trainings are paired by seed (t test), single ones by test class (bootstrap);
    p-values are Holm-corrected.

    Args:
        runs: Folders of trainings, cross-validations, repeats, ensembles or merges.
        sort: Metric to rank and test by; default map_at_r.
        published: Add the published scores of each run's method on its data set.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If a run is no run, has no scores or not the metric, or is given twice.
        DataError: If files of a run are damaged.
    """
    if isinstance(runs, str | Path):
        raise ConfigError("`runs`", ["is one path. Allowed: a list of run folders"])
    paths = [path_of("runs", run) for run in runs]
    with shown(display) as entered, listed_once():
        counting = entered.count("ranking test images, runs")
        return ComparisonResult(compare_runs(paths, sort, published, counting))
