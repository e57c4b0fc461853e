"""One function per command. Everything that the command line does can be done from Python."""

from dmlray.api.averages import cross_validate, repeat
from dmlray.api.datasets import prepare_data, verify_data
from dmlray.api.embedding import embed
from dmlray.api.ensembles import ensemble, merge
from dmlray.api.runs import Demo, demo, doctor, evaluate, forecast, show, train, tune
from dmlray.api.starting import init

__all__ = [
    "Demo", "cross_validate", "demo", "doctor", "embed", "ensemble", "evaluate", "forecast", "init",
    "merge", "prepare_data", "repeat", "show", "train", "tune", "verify_data",
]  # fmt: skip
