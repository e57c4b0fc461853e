"""Ensembles and hyperparameter search for deep metric learning, on Ray.

    import dmlray

    result = dmlray.train("experiments/proxy_anchor_demo.yaml", {"budget.epochs": 3})

Nothing heavy is imported before a name is used. See docs/python.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmlray import evaluation as evaluation
    from dmlray import losses as losses
    from dmlray import methods as methods
    from dmlray.api import (
        BenchmarkResult,
        ComparisonResult,
        RunResult,
        SearchResult,
        ZeroShotResult,
        benchmark,
        compare,
        cross_validate,
        demo,
        doctor,
        ensemble,
        evaluate,
        init,
        merge,
        plan,
        prepare_data,
        read_experiment,
        read_search,
        repeat,
        report,
        show,
        train,
        tune,
        verify_data,
        zero_shot,
    )
    from dmlray.api.embedding import embed_on_cluster
    from dmlray.errors import DmlrayError
    from dmlray.inference.embed_files import embed
    from dmlray.inference.export import export
    from dmlray.inference.load import load_model
    from dmlray.inference.model import Model
    from dmlray.inference.search import query
    from dmlray.plans.benchmark import Benchmark
    from dmlray.plans.ensemble import Ensemble
    from dmlray.plans.experiment import Experiment
    from dmlray.plans.run_folder import RunFolder
    from dmlray.plans.search import Search
    from dmlray.scores import Scores, read_scores

__version__ = "0.2.0.dev0"

__all__ = [
    "Benchmark", "BenchmarkResult", "ComparisonResult", "DmlrayError", "Ensemble", "Experiment",
    "Model", "RunFolder", "RunResult", "Scores", "Search", "SearchResult", "ZeroShotResult",
    "benchmark", "compare", "cross_validate", "demo", "doctor", "embed", "embed_on_cluster",
    "ensemble", "evaluate", "export", "init", "load_model", "merge", "plan", "prepare_data",
    "query", "read_experiment", "read_scores", "read_search", "repeat", "report", "show", "train",
    "tune", "verify_data", "zero_shot",
]  # fmt: skip

_ELSEWHERE = {
    "Benchmark": "plans.benchmark",
    "DmlrayError": "errors",
    "Ensemble": "plans.ensemble",
    "Experiment": "plans.experiment",
    "Model": "inference.model",
    "RunFolder": "plans.run_folder",
    "Scores": "scores",
    "Search": "plans.search",
    "embed": "inference.embed_files",
    "embed_on_cluster": "api.embedding",
    "export": "inference.export",
    "load_model": "inference.load",
    "query": "inference.search",
    "read_scores": "scores",
}  # all others are in `dmlray.api`
_PACKAGES = ("evaluation", "losses", "methods")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}")
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
