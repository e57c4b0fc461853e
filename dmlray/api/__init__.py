"""One function per command. Everything that the command line does can be done from Python."""

from dmlray.api.averages import cross_validate, repeat
from dmlray.api.backbones import zero_shot
from dmlray.api.benchmarks import benchmark
from dmlray.api.datasets import prepare_data, verify_data
from dmlray.api.demo_stages import Demo, demo
from dmlray.api.ensembles import ensemble, merge
from dmlray.api.planning import plan
from dmlray.api.reports import compare, report
from dmlray.api.run_results import (
    BenchmarkResult,
    ComparisonResult,
    RunResult,
    SearchResult,
    ZeroShotResult,
)
from dmlray.api.runs import doctor, evaluate, train
from dmlray.api.searches import tune
from dmlray.api.settings import read_experiment, show
from dmlray.api.starting import Started, init
from dmlray.plans.search import read_search

__all__ = [
    "BenchmarkResult", "ComparisonResult", "Demo", "RunResult", "SearchResult", "Started",
    "ZeroShotResult", "benchmark", "compare", "cross_validate", "demo", "doctor", "ensemble",
    "evaluate", "init", "merge", "plan", "prepare_data", "read_experiment", "read_search", "repeat",
    "report", "show", "train", "tune", "verify_data", "zero_shot",
]  # fmt: skip
