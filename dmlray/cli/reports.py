"""The commands that show finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo
from dmlray.cli.parameters import typed

FORMATS = ("text", "md", "latex", "csv", "html")


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--sort", metavar="METRIC", help="Rank and test by METRIC; default map_at_r.")
@click.option("--published", is_flag=True, help="Add published scores, and what differs.")
def compare(runs: Sequence[Path], format_: str, sort: str | None, published: bool) -> None:
    """Compare finished runs: a table for each protocol, with paired significance tests."""
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.compare(runs, sort=sort, published=published, display=display)
    for line in found.text(format_).split("\n"):
        echo(line)


@click.command()
@click.argument("run", type=PATH)
@click.option("--images", type=int, default=24, show_default=True, help="Queries shown; 0: none.")
@click.option("--projector", is_flag=True, help="Write the embeddings for TensorBoard, too.")
def report(run: Path, images: int, projector: bool) -> None:
    """Write the report of the run in folder RUN, from its files."""
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.report(run, images=images, projector=projector, display=display)
    benchmark = isinstance(found, api.BenchmarkResult)
    page = found.folder.leaderboard("html") if benchmark else found.folder.report
    echo(f"report:  {found.folder}/{page.name}")
    if projector:
        echo(f"projector:  tensorboard --logdir {typed(str(found.folder))}")
