"""A score and all that it depends on: no number travels without its protocol."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dmlray.errors import RunError
from dmlray.storage import write_json


@dataclass(frozen=True)
class Part:
    """One training behind a mean: where it differs from the others, and what it gave.

    `epoch` is the one scored, `validation` its scores on the classes held out, where some are.
    """

    seed: int
    split_fingerprint: str
    epoch: int
    metrics: dict[str, float]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Retrieval on classes never seen in training; metrics are fractions in [0, 1].

    `clustering` names the k-means behind `nmi`: another one gives another number. `remarks` say
    where the data are not what their name promises, and what merging did beyond laying embeddings
    side by side; `curve` holds the metrics of the first 1, 2, ... members.

    `split` names the training classes that `split_fingerprint` hashes.
    `half_width` is that of the 95 % interval of each mean over `n` runs, the `parts` (Student t);
    empty for n = 1. `concatenated` scores the parts' unit embeddings side by side.
    """

    metrics: dict[str, float]
    dataset: str
    dataset_fingerprint: str
    split_fingerprint: str
    test_classes: int
    test_images: int
    method: str
    backbone: str
    embedding_size: int
    selection: str
    tuned_by: str | None
    seed: int
    remarks: list[str] = field(default_factory=list)
    clustering: str | None = None
    zero_shot: dict[str, float] = field(default_factory=dict)
    n: int = 1
    half_width: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    split: str = ""
    parts: list[Part] = field(default_factory=list)
    concatenated: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def read_scores(path: Path) -> Scores:
    """Read scores.json.

    Raises:
        RunError: If there is none yet, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["parts"] = [Part(**part) for part in content.get("parts", [])]
        return Scores(**content)
    except FileNotFoundError:
        raise RunError(f"{path}: no scores yet; finish the run with --resume") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: is damaged ({error}); delete it and --resume the run") from None


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
