"""How a search walks through its space, and what it looks for."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from dmlray.config_model import ConfigModel
from dmlray.evaluation.metrics import can_choose, choosing
from dmlray.printable import shortened

COSTS = ("embedding_size", "seconds")  # that a second metric may save
_LEAST_SHARE = 0.0001  # of a GPU: Ray knows no smaller one
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SearchSettings(ConfigModel):
    """How a search walks through its space."""

    metric: tuple[str, ...] | None = Field(
        None, description="what is sought; several seek a Pareto front; null: protocol.metric"
    )
    folds: int | None = Field(
        None, ge=2, le=1000, description="class-disjoint parts; null: protocol.folds"
    )
    trials: int = Field(20, ge=1, le=1_000_000, description="different points in all")
    time_budget: float | None = Field(
        None, gt=0, description="seconds, or 90m, 2h, 1d, after which a session begins no trial"
    )
    failures_in_a_row: int = Field(5, ge=1, description="failed trials that end the search")
    use_method_space: bool = Field(True, description="begin with the method's own SPACE")
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid"] = Field(
        "tpe", description="who suggests; grid tries each combination once"
    )
    startup_trials: int = Field(10, ge=0, le=10_000, description="random trials before tpe, gp")
    scheduler: Literal["none", "asha", "median"] = Field("none", description="who stops trials")
    grace_epochs: int = Field(1, ge=1, le=10_000, description="epochs before any trial is stopped")
    reduction_factor: float = Field(3, gt=1, le=100, description="ASHA keeps one in so many")
    trials_at_once: int | None = Field(None, ge=1, description="null: what the cluster holds")
    folds_at_once: int | None = Field(
        None,
        ge=1,
        description="of a trial; null: on GPUs what they hold, on CPUs one after another",
    )
    cpus: float | None = Field(
        None,
        gt=0,
        description="CPU cores of a process; null: 1, on GPUs a fair share of their node's",
    )
    gpus: float | None = Field(
        None,
        ge=0,
        description="of each fold, a share or whole ones; null: 1 if the cluster has any, else 0",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler")
    start_from: str | tuple[dict[str, Any], ...] | None = Field(
        None,
        description="run of a search, file of an experiment such as best.yaml, or list of points",
    )
    repeats: int = Field(
        0, ge=0, le=1000, description="trainings of the winner with new seeds, for the test classes"
    )

    @field_validator("metric", mode="before")
    @classmethod
    def _known(cls, origins: Any) -> Any:
        names = [origins] if isinstance(origins, str) else origins
        if names is None:
            return None
        listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if not listed or not names or len(set(names)) < len(names):
            raise ValueError(
                f"{shortened(origins)} is not allowed. Allowed: a name, or a list of different ones"
            )
        scores = ", ".join(choosing())
        if not can_choose(names[0]):
            raise ValueError(f"{shortened(names[0])} is no score. Allowed first: {scores}")
        for name in names[1:]:
            if not can_choose(name) and name not in COSTS:
                raise ValueError(
                    f"unknown {shortened(name)}. Allowed: {scores}, {', '.join(COSTS)}"
                )
        return tuple(names)

    @field_validator("start_from", mode="before")
    @classmethod
    def _source(cls, given: Any) -> Any:
        points = isinstance(given, list | tuple) and all(isinstance(p, dict) and p for p in given)
        if given is None or (isinstance(given, str) and given) or (points and given):
            return given
        allowed = "a run folder or file, or a list of points {key: value}"
        raise ValueError(f"{shortened(given)} is not allowed. Allowed: {allowed}")

    @field_validator("gpus")
    @classmethod
    def _share_or_whole(cls, origins: float | None) -> float | None:
        if origins is not None and (origins % 1 if origins > 1 else 0 < origins < _LEAST_SHARE):
            problem = f"{origins:g} is not allowed"
            raise ValueError(f"{problem}. Allowed: 0, {_LEAST_SHARE:g} to 1, or a whole number")
        return origins

    @field_validator("time_budget", mode="before")
    @classmethod
    def _in_seconds(cls, origins: Any) -> Any:
        found = re.fullmatch(r"([0-9.]+)([smhd])", origins) if isinstance(origins, str) else None
        return float(found[1]) * _UNITS[found[2]] if found else origins
