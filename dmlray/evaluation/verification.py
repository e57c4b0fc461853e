"""Verification: whether two images are of one class, decided by a threshold of their cosine.

Thresholds are chosen on one set of classes and checked on another. Terms of ISO/IEC 19795-1: the
false match rate (FMR) is the share of comparisons of different classes that reach the threshold,
the false non-match rate (FNMR) the share of those of one class that do not.

Letters: T thresholds, C classes.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from pydantic import AfterValidator, ConfigDict
from torch import Tensor

from dmlray.evaluation.comparisons import BINS, ClassCounts, Comparisons, Histograms, edge
from dmlray.evaluation.significance import class_bootstrap
from dmlray.json_schema import FromOne, FromZero, Number, Sha256, Text

RATES = {"fmr_1e-2": 1e-2, "fmr_1e-3": 1e-3, "fmr_1e-4": 1e-4}
BEST_F1 = "best_f1"
AUTO = "fmr_1e-3"  # the threshold that is taken where none is named
SHOWN_BINS = 128  # of the histograms that are kept
_LEAST_ERRORS = 3  # expected among all negative comparisons, else the rate cannot be measured
_RESAMPLES = 2_000


def _fraction(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{value:g} is not allowed. Allowed: a fraction in [0, 1]")
    return value


def _cosine(value: float) -> float:
    if not -1 <= value <= 1:
        raise ValueError(f"{value:g} is not allowed. Allowed: a cosine from -1 to 1")
    return value


Fraction = Annotated[Number, AfterValidator(_fraction)]
Cosine = Annotated[Number, AfterValidator(_cosine)]
_Counts = list[FromZero]


@dataclass(frozen=True)
class Rate:
    """A share of comparisons, with its 95 % interval over classes; none for a single class."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    value: Fraction
    low: Fraction | None = None
    high: Fraction | None = None


@dataclass(frozen=True)
class Threshold:
    """The cosine from which on two images match.

    Attributes:
        cosine: Edge of a bin of `comparisons.BINS`.
        fmr, fnmr: On the classes that it was chosen on.
        test_fmr, test_fnmr: On the test classes; the first is None for a single class.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    cosine: Cosine
    fmr: Fraction
    fnmr: Fraction
    test_fmr: Rate | None
    test_fnmr: Rate


@dataclass(frozen=True)
class Verification:
    """Thresholds by name, see `RATES` and `BEST_F1`, and what they were chosen on.

    Attributes:
        thresholds: Without those that the comparisons are too few for.
        classes, images: That were held out of training, and chose the thresholds.
        positives, negatives: Their comparisons of one class, and of different classes.
        positive_counts, negative_counts: The same by cosine, in SHOWN_BINS equal bins over [-1, 1].
        embeddings_sha256: SHA-256 of the file of the embeddings of these images, if there is one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    thresholds: dict[Text, Threshold]
    classes: FromOne
    images: FromOne
    positives: FromZero
    negatives: FromZero
    embeddings_sha256: Sha256 | None = field(default=None, compare=False)
    positive_counts: _Counts = field(default_factory=list)
    negative_counts: _Counts = field(default_factory=list)


def verify(held_out: Comparisons, test: Comparisons) -> Verification:
    """Choose thresholds on the comparisons of held-out classes; check them on the test classes."""
    histograms = held_out.histograms()
    chosen = choose(histograms)
    checked = _checked(test, list(chosen.values()))
    found = {
        name: Threshold(edge(index), *_error_rates(histograms, index), *checked[index])
        for name, index in chosen.items()
    }
    labels = held_out.task.labels
    return Verification(
        thresholds=found,
        classes=len(labels.unique()),
        images=len(labels),
        positives=int(histograms.positives.sum()),
        negatives=int(histograms.negatives.sum()),
        positive_counts=_coarse(histograms.positives),
        negative_counts=_coarse(histograms.negatives),
    )


def choose(histograms: Histograms) -> dict[str, int]:
    """The bins whose edges are the thresholds, by name.

    For a false match rate the lowest edge that does not exceed it; left out where fewer than 3
    false matches are expected among all negative comparisons, or where even a cosine of 1 exceeds
    it. For F1 the edge with the largest, of equals the highest.
    """
    positives, negatives = (_reaching(counts) for counts in histograms)
    chosen: dict[str, int] = {}
    for name, rate in RATES.items():
        if negatives[0] and rate * negatives[0] >= _LEAST_ERRORS:
            low_enough = np.flatnonzero(negatives / negatives[0] <= rate)
            if len(low_enough):
                chosen[name] = int(low_enough[0])
    if positives[0] and negatives[0]:
        f1 = 2 * positives / (positives + negatives + positives[0])
        chosen[BEST_F1] = BINS - int(f1[::-1].argmax())
    return chosen


def _reaching(counts: Tensor) -> np.ndarray:
    """How many comparisons reach the edge of each bin."""
    reaching: np.ndarray = counts.numpy()[::-1].cumsum()[::-1]
    return reaching


def _error_rates(histograms: Histograms, index: int) -> tuple[float, float]:
    """False match rate and false non-match rate at the edge of bin `index`."""
    positives, negatives = (counts.numpy() for counts in histograms)
    fmr = negatives[index:].sum() / negatives.sum()
    return float(fmr), float(positives[:index].sum() / positives.sum())


def _checked(test: Comparisons, bins: list[int]) -> dict[int, tuple[Rate | None, Rate]]:
    """False match rate and false non-match rate on the test classes, by bin."""
    rising = sorted(set(bins))
    if not rising:
        return {}
    counts = test.count_matches([edge(index) for index in rising])
    return {index: _test_rates(counts, place) for place, index in enumerate(rising)}


def _test_rates(counts: ClassCounts, place: int) -> tuple[Rate | None, Rate]:
    missed = counts.positives - counts.matched_positives[:, place]
    wrong = _rate(counts.matched_negatives[:, place], counts.negatives)
    not_matched = _rate(missed, counts.positives)
    assert not_matched is not None  # else nothing could be retrieved
    return wrong, not_matched


def _rate(errors: Tensor, comparisons: Tensor) -> Rate | None:
    """The share of errors (C,) among comparisons (C,), with its interval over classes.

    Source: Bolle et al., Error analysis of pattern recognition systems - the subsets bootstrap,
    CVIU 2004: a class and all comparisons of its queries are drawn together.
    """
    counted = (comparisons > 0).numpy()
    sums, sizes = errors.numpy()[counted], comparisons.numpy()[counted]
    if not len(sizes):
        return None
    if len(sizes) == 1:
        return Rate(float(sums[0] / sizes[0]))
    found = class_bootstrap(sums, np.zeros_like(sums), sizes, _RESAMPLES)
    return Rate(found.value, found.low, found.high)


def _coarse(counts: Tensor) -> list[int]:
    """SHOWN_BINS counts; the last also holds cosines of 1."""
    summed = counts[:BINS].view(SHOWN_BINS, -1).sum(1)
    summed[-1] += counts[BINS]
    shown: list[int] = summed.tolist()
    return shown
