"""The command `dmlray init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo, echo_wrapped

if TYPE_CHECKING:
    from dmlray.api.starting import Started


@click.command()
@click.argument("images", type=PATH)
@click.option("--out", type=PATH, help="Folder to write the two files into; default the current.")
def init(images: Path, out: Path | None) -> None:
    """Look at IMAGES, a folder, CSV or parquet file, and write an experiment and a search for it.

    Each choice has a comment; nothing is overwritten.
    """
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        started = api.init(images, out=out, display=display)
    for line in _findings(started):
        echo_wrapped(line)
    _print_next(started)


def _findings(started: Started) -> list[str]:
    images, data = started.images, started.images.dataset
    train, tested = data.train_classes, len(data.classes) - data.train_classes
    least, median, most = images.images_per_class
    low, middle, high = images.short_side
    counts = images.fold_counts
    folds = f"{counts[0]} to {counts[-1]}" if counts[1:] else f"{counts[0]}" if counts else "none"
    how = "first half by name" if images.split == "classes" else "as given"
    counted = f"{len(data)} of {len(data.classes)} classes"
    lines = [
        f"images:   {counted}, {least} to {most} each (median {median})",
        f"split:    {train} classes train, {tested} test and are never seen ({how})",
        f"size:     shorter side {low} to {high} pixels (median {middle})",
        f"folds:    {folds}{'' if counts else ': too few training classes for a search'}",
        f"speed:    {started.speed:.3g} images per second",
    ]
    for file, reason in list(images.broken.items())[:3]:
        lines.append(f"broken:   {file}: {reason}")
    if len(images.broken) > 3:
        lines.append(f"broken:   {len(images.broken) - 3} more, which `dmlray data verify` lists")
    return [*lines, *(f"note:     {remark}" for remark in images.remarks)]


def _print_next(started: Started) -> None:
    from dmlray.plans.starter_files import duration

    schedule = started.schedule
    files = [started.experiment, *([started.search] if started.search else [])]
    echo(f"written:  {', '.join(map(str, files))}")
    training = duration(schedule.seconds)
    echo(f"next:     dmlray train {_typed(started.experiment)}    # about {training}")
    if started.search:
        searching = duration(schedule.search_seconds)
        echo(f"then:     dmlray tune {_typed(started.search)}    # about {searching}")


def _typed(file: Path) -> str:
    return shlex.quote(f"./{file}" if f"{file}".startswith("-") else f"{file}")
