"""Scores with the protocol that they depend on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, TypeAdapter

from dmlray.atomic_files import write_json
from dmlray.errors import DataError, RunError
from dmlray.evaluation.metrics import lowest
from dmlray.evaluation.verification import RATES, Rate, Verification
from dmlray.file_reading import reason
from dmlray.json_schema import (
    FromOne,
    FromZero,
    Number,
    Sha256,
    Spread,
    Text,
    checked,
    read_checked,
)
from dmlray.printable import printable

_ROUNDING = 1e-9  # by which NMI may exceed 1


def _in_range(metrics: dict[str, float]) -> dict[str, float]:
    for name, value in metrics.items():
        if not (lowest(name) <= value <= 1 + _ROUNDING and math.isfinite(value)):
            legal = "fraction in [0, 1]" if lowest(name) == 0 else "number up to 1"
            raise ValueError(f"{name}: {value:g} is not a {legal}")
    return metrics


Metrics = Annotated[dict[Text, Number], AfterValidator(_in_range)]
Selection = Literal["validation", "last", "best_on_test", "mixed"]


@dataclass(frozen=True)
class ScorePart:
    """One of the trainings that a mean is taken over.

    Attributes:
        epoch: The epoch that is scored.
        validation: Scores of that epoch on held-out training classes; empty without any.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    seed: FromZero
    split_fingerprint: Text
    epoch: FromOne
    metrics: Metrics
    validation: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Retrieval scores on classes unseen in training; metrics are those of METRICS, most in [0, 1].

    Attributes:
        remarks: How the data differ from the published data set, and what a merge did other than
            concatenating embeddings.
        clustering: Implementation of k-means behind metrics such as `nmi`, which depend on it.
        n: Number of runs that the means are over, the `parts`.
        half_width: Of the 95 % confidence interval of each mean (Student t); empty for n = 1.
        curve: Metrics of the first 1, 2, ... members.
        split: Training classes that `split_fingerprint` hashes.
        concatenated: Scores of the parts' concatenated unit embeddings.
        embeddings_sha256: SHA-256 of embeddings.npy; None without that file or in older runs.
            Embeddings that differ in rounding may have the same scores.
        precision: Of training and of embeddings, on the device used; empty in older runs.
        computed_on: GPU, with the versions of CUDA, cuDNN and driver; empty on a CPU.
        verification: Thresholds chosen on held-out training classes; None without any.
        no_threshold: Why there is no `verification`; empty if there is, and in older runs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    metrics: Metrics
    dataset: Text
    dataset_fingerprint: Text
    split_fingerprint: Text
    test_classes: FromOne
    test_images: FromOne
    method: Text
    backbone: Text
    embedding_size: FromOne
    selection: Selection
    tuned_by: Text | None
    seed: FromZero
    remarks: list[Text] = field(default_factory=list)
    clustering: Text | None = None
    zero_shot: Metrics = field(default_factory=dict)
    n: FromOne = 1
    half_width: dict[Text, Spread] = field(default_factory=dict)
    curve: list[Metrics] = field(default_factory=list)
    split: Text = ""
    parts: list[ScorePart] = field(default_factory=list)
    concatenated: Metrics = field(default_factory=dict)
    embeddings_sha256: Sha256 | None = field(default=None, compare=False)
    precision: Text = ""
    computed_on: Text = ""
    no_threshold: Text = ""
    verification: Verification | None = None

    def write(self, path: Path) -> None:
        """Write all fields as JSON, whole or not at all."""
        write_json(path, asdict(self))


_SCORES, _METRICS = TypeAdapter(Scores), TypeAdapter(Metrics)


def read_scores(path: Path) -> Scores:
    """Read scores.json; check its schema, its ranges and its consistency.

    Raises:
        RunError: If it is missing or damaged.
    """
    try:
        scores = read_checked(path, _SCORES)
        _check_agreement(scores)
    except FileNotFoundError:
        raise RunError(f"{path}: no scores yet; resume the run to finish it") from None
    except (OSError, ValueError) as error:
        problem = f"is damaged ({reason(error)}); delete it and resume the run"
        raise RunError(f"{path}: {problem}") from None
    return scores


def parse_scores(content: object) -> Scores:
    """Make Scores of the result of `dataclasses.asdict`, as another process may send it.

    Raises:
        ValueError: If it is anything else.
    """
    return checked(_SCORES, content)


def read_zero_shot(path: Path) -> dict[str, float]:
    """Read zero_shot.json; return {} for a run without zero-shot scores.

    Raises:
        DataError: If it is damaged.
    """
    try:
        return read_checked(path, _METRICS)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        remedy = "delete it, and the scores are without those before training"
        raise DataError(f"{path}: is damaged ({reason(error)}); {remedy}") from None


def _check_agreement(scores: Scores) -> None:
    """Check that numbers that are stored twice agree."""
    names = scores.metrics.keys()
    if not names:
        raise ValueError("metrics: holds no metric")
    if scores.curve and scores.curve[-1] != scores.metrics:
        raise ValueError("curve: its last entry differs from metrics")
    if any(entry.keys() != names for entry in [*scores.curve, *(p.metrics for p in scores.parts)]):
        raise ValueError("curve and parts: some hold other metrics than the whole")
    if scores.n != max(1, len(scores.parts)):
        raise ValueError(f"n: {scores.n} for {len(scores.parts)} parts")
    if scores.half_width and scores.half_width.keys() != names:
        raise ValueError("half_width: holds other metrics than the whole")


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % confidence interval of the mean (Student t, n - 1 d.f.)."""
    from scipy import stats  # half a second to import, needed only here

    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def why_no_threshold(scores: Scores) -> str:
    """One sentence of why these scores have no thresholds."""
    older = "the run was scored by a version without thresholds"
    return scores.no_threshold or f"{older}; delete its scores.json and resume it"


def threshold_table(verification: Verification) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of all thresholds, rates in percent."""
    head = ["chosen at", "cosine", "FMR, held out", "FNMR, held out", "FMR, test", "FNMR, test"]
    rows = [
        [
            f"FMR {100 * RATES[name]:g} %" if name in RATES else "best F1",
            f"{found.cosine:.4f}",
            *(f"{100 * rate:.3g}" for rate in (found.fmr, found.fnmr)),
            *map(_rate, (found.test_fmr, found.test_fnmr)),
        ]
        for name, found in verification.thresholds.items()
    ]
    return head, rows


def threshold_words(found: Verification) -> str:
    """What the thresholds were chosen on, in one sentence or two."""
    lacking = [f"{100 * rate:g} %" for name, rate in RATES.items() if name not in found.thresholds]
    few = f" Too few comparisons for an FMR of {', '.join(lacking)}." if lacking else ""
    return (
        f"Two images match from this cosine on. Chosen on {found.images} images of {found.classes} "
        f"training classes that were held out ({found.positives:,} comparisons of one class, "
        f"{found.negatives:,} of different classes) and checked once on the test classes; rates in "
        f"percent, in brackets the 95 % interval over test classes.{few}"
    )


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "-"
    ends = (
        f" ({100 * rate.low:.3g} to {100 * rate.high:.3g})"
        if rate.low is not None and rate.high is not None
        else ""
    )
    return f"{100 * rate.value:.3g}{ends}"


def percent(metrics: Mapping[str, Any], name: str) -> str:
    """Format a fraction as a percentage: 89.7."""
    return f"{100 * metrics[name]:.1f}" if name in metrics else "-"


def protocol_line(scores: Scores) -> str:
    """All that a score depends on, in one line."""
    rules = {
        "last": "last epoch, trained on all training classes",
        "validation": "epoch chosen on held-out training classes",
        "mixed": "epochs by each run's own rule",
        "best_on_test": "EPOCH CHOSEN ON THE TEST CLASSES, for comparison only",
    }
    tuned = f"; settings by {scores.tuned_by}" if scores.tuned_by else ""
    computed = f"; computed in {scores.precision}" if scores.precision else ""
    computed += f" on {scores.computed_on}" if scores.computed_on else ""
    remarks = "".join(f"; NOTE: {remark}" for remark in scores.remarks)
    return printable(
        f"{scores.test_images} test images; {scores.backbone}, {scores.embedding_size}-d; "
        f"{rules[scores.selection]}{tuned}{computed}; n = {scores.n}; seed {scores.seed}; "
        f"split {' '.join(filter(None, (scores.split, scores.split_fingerprint)))}{remarks}"
    )
