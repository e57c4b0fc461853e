"""A score and all that it depends on: no number travels without its protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, TypeAdapter

from dmlray.atomic_files import write_json
from dmlray.errors import DataError, RunError
from dmlray.evaluation.metrics import lowest
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
            raise ValueError(f"{name}: {value:g} is no {legal}")
    return metrics


Metrics = Annotated[dict[Text, Number], AfterValidator(_in_range)]
Selection = Literal["validation", "last", "best_on_test", "mixed"]


@dataclass(frozen=True)
class ScorePart:
    """One training behind a mean: where it differs from the others, and what it gave.

    `epoch` is the one scored, `validation` its scores on the classes held out, where some are.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    seed: FromZero
    split_fingerprint: Text
    epoch: FromOne
    metrics: Metrics
    validation: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Retrieval on classes never seen in training; metrics as METRICS has them, most in [0, 1].

    `clustering` names the k-means behind metrics such as `nmi`: another one gives other numbers.
    `remarks` say where the data are not what their name promises, and what merging did beyond
    laying embeddings side by side; `curve` holds the metrics of the first 1, 2, ... members.

    `precision` is that of training and of the embeddings, on the device that it ran on; empty
    where the run is older. `computed_on` names the GPU, with the versions of CUDA, cuDNN and
    driver; empty on a CPU.
    `split` names the training classes that `split_fingerprint` hashes.
    `half_width` is that of the 95 % interval of each mean over `n` runs, the `parts` (Student t);
    empty for n = 1. `concatenated` scores the parts' unit embeddings side by side.
    `embeddings_sha256` is that of the file `embeddings.npy`, None where there is none or the run
    is older; the same scores may come from embeddings that differ in rounding.
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

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


_SCORES, _METRICS = TypeAdapter(Scores), TypeAdapter(Metrics)


def read_scores(path: Path) -> Scores:
    """Read scores.json; its schema, its ranges and what must agree within it are checked.

    Raises:
        RunError: If there is none yet, or it is damaged.
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
    """Make Scores of what `dataclasses.asdict` gave, perhaps in another process.

    Raises:
        ValueError: If it is something else.
    """
    return checked(_SCORES, content)


def read_zero_shot(path: Path) -> dict[str, float]:
    """Read zero_shot.json; a run that began without one has no such scores.

    Raises:
        DataError: If it is damaged.
    """
    try:
        return read_checked(path, _METRICS)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        mend = "delete it, and the scores do without those before training"
        raise DataError(f"{path}: is damaged ({reason(error)}); {mend}") from None


def _check_agreement(scores: Scores) -> None:
    """Numbers that stand in several places are the same there."""
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
    """Half the width of the 95 % interval of the mean (Student t, n - 1 degrees of freedom)."""
    from scipy import stats  # half a second to import, needed only here

    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def percent(metrics: Mapping[str, Any], name: str) -> str:
    """A fraction as people read it: 89.7."""
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
