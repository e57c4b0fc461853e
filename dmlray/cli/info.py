"""Commands that print information; nothing is trained and nothing is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo_wrapped

if TYPE_CHECKING:
    from dmlray.cluster.benchmark_forecast import BenchmarkForecast
    from dmlray.cluster.forecast import Forecast

FILE = click.argument("file", type=PATH)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


@click.command()
@FILE
@OVERRIDES
@click.option("--describe", is_flag=True, help="Also print what each setting means and allows.")
def show(file: Path, overrides: Sequence[str], describe: bool) -> None:
    """Print each setting of FILE, an experiment, a search or an ensemble, and its origin."""
    from dmlray import api

    table = api.show(file, overrides)
    for row in table.rows:
        echo_wrapped(f"{row.key:<32} {row.value:<24} {row.origin}")
        if describe and row.allowed:
            echo_wrapped(f"    {row.meaning}. Allowed: {row.allowed}")
    for remark in table.remarks():
        echo_wrapped(remark)


@click.command()
@FILE
@OVERRIDES
@click.option("--address", help="Ray cluster to plan for; default RAY_ADDRESS or a new one.")
def plan(file: Path, overrides: Sequence[str], address: str | None) -> None:
    """Check FILE, a search, an experiment or a benchmark, and estimate time and memory here."""
    from dmlray import api
    from dmlray.cluster.forecast import Forecast
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.plan(file, overrides, address=address, display=display)
    for line in _lines(found) if isinstance(found, Forecast) else _benchmark_lines(found):
        echo_wrapped(line)


@click.command()
def methods() -> None:
    """List the methods and what each one is."""
    from dmlray import methods as known

    for name in known.names():
        echo_wrapped(f"{name:<16} {(known.load(name).__doc__ or '').strip().splitlines()[0]}")


@click.command()
@click.option("--address", help="Ray cluster to look at; default RAY_ADDRESS or a new one.")
@click.option("--root", type=PATH, help="Images that every node must see.")
@click.option("--out", type=PATH, help="Run folders that every node must see; default runs.")
def doctor(address: str | None, root: Path | None, out: Path | None) -> None:
    """Check versions, devices, Ray and each of its nodes, disk, weights and data."""
    from dmlray import api

    healthy = True
    for check in api.doctor(address, root=root, out=out):
        healthy &= check.well
        echo_wrapped(f"{'ok  ' if check.well else 'FAIL'}  {check.what:<12} {check.found}")
    if not healthy:
        sys.exit(1)


def _lines(found: Forecast) -> Iterator[str]:
    probe, each = found.probe, found.resources
    what = f"{found.trials} trials x {found.folds} folds" if found.folds > 1 else "one training"
    yield (
        f"work:          {what} x {found.epochs} epochs, "
        f"{probe.steps} steps and {probe.scored_images} images scored per epoch"
    )
    if found.repeats:
        yield f"               then {found.repeats} repeats of the winner, on all training classes"
    yield (
        f"side by side:  {each.at_once} x {each.workers} processes, "
        f"{each.cpus:g} CPU and {each.gpus:g} GPU per process"
    )
    yield (
        f"probe:         {probe.step:.3g} s a step, {1000 * probe.image:.3g} ms an image scored, "
        f"{probe.start:.2g} s to start"
    )
    most = "at most " if found.stops_early else ""
    yield f"time:          {most}{_duration(found.seconds)}, if nothing slows anything else down"
    gpu = f" and {_gib(found.gpu_memory)} of its GPU" if found.gpu_memory else ""
    processes = each.at_once * each.workers
    yield (
        f"memory:        {_gib(found.memory)}{gpu} per process; "
        f"{_gib(processes * found.memory)} for {processes} side by side"
    )


def _benchmark_lines(found: BenchmarkForecast) -> Iterator[str]:
    for cell in found.cells:
        each = f"{cell.trainings} trainings, {_duration(cell.seconds)}, {_gib(cell.disk)} on disk"
        yield f"{cell.dataset + ', ' + cell.method:<32} {each}"
    at_once = f"{found.at_once} at a time" if found.at_once > 1 else "one after another"
    yield f"work:          {len(found.cells)} cells, {at_once}, {found.trainings} trainings"
    yield f"time:          {_duration(found.seconds)}, if nothing slows anything else down"
    memory = max(cell.memory for cell in found.cells)
    gpu_memory = max(cell.gpu_memory for cell in found.cells)
    gpu = f" and {_gib(gpu_memory)} of its GPU" if gpu_memory else ""
    yield f"memory:        at most {_gib(memory)}{gpu} per process"
    yield f"disk:          {_gib(found.disk)} of checkpoints"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
