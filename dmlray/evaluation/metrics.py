"""METRICS: every score of embeddings that dmlray computes. One entry makes a metric reachable.

Formulas and sources are in docs/metrics.md.

Letters: B queries of a block, W nearest items that are looked at, K neighbours that a name holds,
R items of a query's class that count, N images.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmlray.errors import ConfigError
from dmlray.evaluation.partitions import (
    adjusted_mutual_information,
    normalised_mutual_information,
    pairwise_f1,
)


@dataclass(frozen=True)
class Ranked:
    """The ranked hits of a block of queries.

    `hits` (B, W): whether each of the nearest is of the query's class; known as far as a metric
    asks for it, False beyond. `first` (B,): the rank of the first hit, from 0. `relevant` (B, 1):
    R of each query, at least 1, and at most `most` of all queries.
    """

    hits: Tensor
    first: Tensor
    relevant: Tensor
    most: int

    @cached_property
    def places(self) -> Tensor:
        """(W,) 1, 2, ..."""
        return torch.arange(1, self.hits.shape[1] + 1, device=self.hits.device)

    @cached_property
    def within_r(self) -> Tensor:
        """(B, most) float64: 1 for a hit among the R nearest."""
        return (self.hits[:, : self.most] & (self.places[: self.most] <= self.relevant)).double()


@dataclass(frozen=True)
class Metric:
    """A finite score of `lowest` to 1; `direction` is whether more of it is better.

    `name` and `label` end in K where a number of neighbours stands. `tabled` are the K that tables
    show; None: all.
    """

    name: str
    label: str
    direction: Literal["max", "min"] = "max"
    lowest: float = 0.0
    tabled: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalMetric(Metric):
    """A mean over queries. `compute(ranked, K)` gives each query's value or terms of it: (B, ...).

    `needs` is what must be known of each query: the rank of its `first` hit, if that is below K
    (without K: in any case); the hits among its K `nearest`; or those among the R nearest
    (`class`).
    """

    compute: Callable[[Ranked, int], Tensor]
    needs: Literal["first", "nearest", "class"]


@dataclass(frozen=True, kw_only=True)
class ClusteringMetric(Metric):
    """`compute` compares k-means clusters with labels, (N,) each."""

    compute: Callable[[np.ndarray, np.ndarray], float]


def _average_precision(ranked: Ranked, k: int) -> Tensor:
    hits = ranked.hits[:, :k].double()
    return hits * (hits.cumsum(1) / ranked.places[:k]) / ranked.relevant.clamp(max=k)


_ENTRIES: tuple[Metric, ...] = (
    RetrievalMetric(
        "recall_at_K",
        "Recall@K",
        tabled=(1,),
        compute=lambda ranked, k: ranked.first < k,
        needs="first",
    ),
    RetrievalMetric(
        "r_precision",
        "R-Precision",
        compute=lambda ranked, _: ranked.within_r / ranked.relevant,
        needs="class",
    ),
    RetrievalMetric(
        "map_at_r",
        "MAP@R",
        compute=lambda ranked, _: (
            ranked.within_r
            * (ranked.within_r.cumsum(1) / ranked.places[: ranked.most])
            / ranked.relevant
        ),
        needs="class",
    ),
    RetrievalMetric(
        "precision_at_K",
        "Precision@K",
        compute=lambda ranked, k: ranked.hits[:, :k].double() / k,
        needs="nearest",
    ),
    RetrievalMetric(
        "mean_average_precision_at_K", "mAP@K", compute=_average_precision, needs="nearest"
    ),
    RetrievalMetric("cmc_at_K", "CMC@K", compute=lambda ranked, k: ranked.first < k, needs="first"),
    RetrievalMetric(
        "mean_reciprocal_rank",
        "MRR",
        compute=lambda ranked, _: 1 / (ranked.first + 1).double(),
        needs="first",
    ),
    ClusteringMetric("nmi", "NMI", compute=normalised_mutual_information),
    ClusteringMetric("ami", "AMI", lowest=-math.inf, compute=adjusted_mutual_information),
    ClusteringMetric("pairwise_f1", "pairwise F1", compute=pairwise_f1),
)
METRICS = {metric.name: metric for metric in _ENTRIES}

RECALL_AT = (1, 2, 4, 8)


class Named(NamedTuple):
    """A metric as a score's name has it; `k` is 0 where the metric has no K."""

    metric: Metric
    k: int


def find(name: str) -> Named:
    """The metric that `name` means, such as `recall_at_4`.

    Raises:
        ValueError: If there is none.
    """
    match = re.fullmatch(r"(.+_at_)([1-9][0-9]{0,8})", name)
    family, k = (match[1] + "K", int(match[2])) if match else (name, 0)
    if family not in METRICS or family.endswith("_K") != bool(k):
        raise ValueError(f"unknown metric {name!r}. Allowed: {', '.join(METRICS)}, K at least 1")
    return Named(METRICS[family], k)


def is_known(name: str) -> bool:
    """Whether `name` means a metric of this version."""
    try:
        find(name)
    except ValueError:
        return False
    return True


def choosing() -> list[str]:
    """Metrics by which epochs and settings can be chosen: of each epoch, and more is better."""
    return [
        metric.name
        for metric in METRICS.values()
        if isinstance(metric, RetrievalMetric) and metric.direction == "max"
    ]


def can_choose(name: str) -> bool:
    """Whether `name` means one of the metrics of `choosing`."""
    return is_known(name) and find(name).metric.name in choosing()


def standard_metrics(recall_at: Iterable[int] = RECALL_AT) -> tuple[str, ...]:
    """Names of each Recall@K, R-Precision and MAP@R."""
    return (*(f"recall_at_{k}" for k in recall_at), "r_precision", "map_at_r")


STANDARD = standard_metrics()


def of_retrieval(names: Sequence[str], neighbours: int) -> tuple[str, ...]:
    """Those of the names that are retrieval metrics, of a K up to the number of `neighbours`."""
    found = ((name, find(name)) for name in names)
    return tuple(
        name
        for name, (metric, k) in found
        if isinstance(metric, RetrievalMetric) and k <= neighbours
    )


def of_clustering(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that need k-means."""
    return tuple(name for name in names if isinstance(find(name).metric, ClusteringMetric))


def retrieval_metrics(names: Sequence[str], neighbours: int) -> list[tuple[RetrievalMetric, int]]:
    """The metrics and K that the names mean, for a gallery of so many `neighbours` of a query.

    Raises:
        ConfigError: If one is no retrieval metric, or its K is too large.
    """
    found, wrong = [], []
    for name in names:
        metric, k = _known(name)
        if not isinstance(metric, RetrievalMetric) or k > neighbours:
            wrong.append(name)
        else:
            found.append((metric, k))
    if wrong:
        allowed = f"retrieval metrics, K of 1 to {neighbours}, the number of other images"
        raise ConfigError("metrics", [f"{', '.join(wrong)} is not allowed. Allowed: {allowed}"])
    return found


def clustering_metrics(names: Sequence[str]) -> dict[str, ClusteringMetric]:
    """The metrics that need k-means, by name.

    Raises:
        ConfigError: If one is no such metric.
    """
    found = {name: _known(name).metric for name in names}
    known = {name: m for name, m in found.items() if isinstance(m, ClusteringMetric)}
    if wrong := [name for name in names if name not in known]:
        raise ConfigError("metrics", [f"{', '.join(wrong)} needs no k-means"])
    return known


def _known(name: str) -> Named:
    try:
        return find(name)
    except ValueError as error:
        raise ConfigError("metrics", [str(error)]) from None


def label(name: str) -> str:
    """A score's name as people write it; one that this version does not know is left as it is."""
    if not is_known(name):
        return name
    metric, k = find(name)
    return metric.label.replace("@K", f"@{k}") if k else metric.label


def tabled(names: Iterable[str]) -> list[str]:
    """Those of the names that tables show, in the order of METRICS, then of K."""
    return sorted(filter(_in_tables, dict.fromkeys(names)), key=_order)


def lowest(name: str) -> float:
    """The least value that a score can have; 0 for one that this version does not know."""
    return find(name).metric.lowest if is_known(name) else 0.0


def _in_tables(name: str) -> bool:
    if not is_known(name):
        return False
    metric, k = find(name)
    return metric.tabled is None or k in metric.tabled


def _order(name: str) -> tuple[int, int]:
    metric, k = find(name)
    return list(METRICS).index(metric.name), k
