"""Findings of decoding a data set: broken images with reasons, and unusual bit depths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dmlray.errors import DataError
from dmlray.printable import printable

SHOWN = 20  # files that a message lists
TWELVE = 4095  # the largest value of 12 bits

Reasons = dict[int, str]  # row of the data set -> why its image cannot be read


@dataclass
class DecodingRemarks:
    """Counts over `done` decoded images.

    `broken` images have damaged content; `unreached` failed for the disk or the memory. `deep`
    images had 16 bits, `peak` is their largest value; `scaled` are rows of float or 32-bit values.
    """

    done: int = 0
    broken: Reasons = field(default_factory=dict)
    unreached: Reasons = field(default_factory=dict)
    deep: int = 0
    peak: int = 0
    scaled: list[int] = field(default_factory=list)

    @classmethod
    def parsed(cls, content: Mapping[str, Any]) -> "DecodingRemarks":
        """Parse the JSON form of `asdict`, whose row numbers are strings."""
        rows = {
            name: {int(row): reason for row, reason in content[name].items()}
            for name in ("broken", "unreached")
        }
        return cls(**{**content, **rows})

    def add(self, other: "DecodingRemarks") -> None:
        """Add the counts of `other`."""
        self.done += other.done
        self.broken |= other.broken
        self.unreached |= other.unreached
        self.deep += other.deep
        self.peak = max(self.peak, other.peak)
        self.scaled += other.scaled

    def remarks(self, files: Sequence[str]) -> tuple[str, ...]:
        """Remarks for every score of these images, the rows `files`."""
        texts = []
        if self.scaled:
            count = f"{len(self.scaled)} of {self.done} images have float or 32-bit values"
            first = files[min(self.scaled)]
            texts.append(f"{count}, each file's scaled by its own range, first {first}")
        if self.deep and self.peak <= TWELVE:
            count = f"no value of the {self.deep} 16-bit images is above {TWELVE:,}"
            texts.append(f"{count}: 12 bits in 16 are nearly black; multiply the values by 16")
        return tuple(texts)


class UnreadableImagesError(DataError):
    """Images of one data set that cannot be read, one per line."""

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        super().__init__(text)
        self.text, self.lines = text, tuple(lines)
        self.args = ("\n  ".join([*self.args, *map(printable, lines)]),)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.text, self.lines)


def refusal(root: Path, reasons: Mapping[str, str], count: int, advice: str = "") -> DataError:
    """Error for files below `root`, of `count`, that cannot be read: lists the first `SHOWN`."""
    lines = [f"{file}: {reason}" for file, reason in islice(reasons.items(), SHOWN)]
    if len(reasons) > SHOWN:
        lines.append(f"and {len(reasons) - SHOWN} more")
    text = f"{root}: {len(reasons)} of {count} images cannot be read.{advice}"
    return UnreadableImagesError(text, lines)
