"""The function behind `dmlray plan`: what a plan will take here."""

from dataclasses import replace

from dmlray.api.benchmarks import plan_benchmark
from dmlray.api.run_setup import prepare
from dmlray.api.teaching import load_teacher
from dmlray.cluster import forecast as forecasting
from dmlray.cluster.benchmark_forecast import BenchmarkForecast
from dmlray.cluster.forecast import Forecast
from dmlray.cluster.search.start_points import read_start
from dmlray.cluster.session import session
from dmlray.learn.class_split import listed_once
from dmlray.learn.space_preflight import preflight_space
from dmlray.plans.benchmark import Benchmark, BenchmarkSource, is_benchmark, read_benchmark
from dmlray.plans.config_sources import Overrides, read_source
from dmlray.plans.experiment import Experiment
from dmlray.plans.plan_files import BENCHMARKS, FOLDERS
from dmlray.plans.resolve import ExperimentSource
from dmlray.plans.search import Search, SearchSource, read_plan
from dmlray.reporting.progress import Display, Shown, shown

_PROBING = "probing a few steps, in a process of its own"


def plan(
    file: ExperimentSource | SearchSource | BenchmarkSource,
    overrides: Overrides = (),
    *,
    address: str | None = None,
    display: Shown = "auto",
) -> Forecast | BenchmarkForecast:
    """Forecast what a search, a training or a benchmark takes here; check all, leave no trace.

    Args:
        file: A file of an experiment, a search or a benchmark, its content, or a plan.
        overrides: Dotted key -> value, above the file's own.
        address: Ray cluster to plan for; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: What the first trial or the training would meet.
    """
    with shown(display) as entered, listed_once():
        benchmark = _as_benchmark(file)
        if benchmark is not None:
            return plan_benchmark(read_benchmark(benchmark, overrides), address, entered)
        assert not isinstance(file, Benchmark)
        read = read_plan(file, overrides)
        if isinstance(read, Search):
            return _plan_search(read, address, entered)
        load_teacher([read.experiment])
        experiment, dataset = prepare(read.experiment, entered)
        with session(address, entered.log) as cluster:
            entered.log(_PROBING)
            return forecasting.of_experiment(experiment, dataset, cluster)


def _plan_search(search: Search, address: str | None, display: Display) -> Forecast:
    load_teacher([search.experiment])
    experiment, dataset = prepare(search.experiment, display, folds=True)
    search = replace(search, experiment=experiment)
    preflight_space(search, dataset)
    read_start(search, dataset.fingerprint)
    with session(address, display.log) as cluster:
        display.log(_PROBING)
        return forecasting.of_search(search, dataset, cluster)


def _as_benchmark(
    file: ExperimentSource | SearchSource | BenchmarkSource,
) -> BenchmarkSource | None:
    """The plan if it is one of a benchmark."""
    if isinstance(file, Search | Experiment):
        return None
    if isinstance(file, Benchmark):
        return file
    return file if is_benchmark(read_source(file, "plan", (*FOLDERS, BENCHMARKS))) else None
