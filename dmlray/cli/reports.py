"""The commands that show finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo

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
def report(run: Path, images: int) -> None:
    """Write the report of the finished run in folder RUN, from its files."""
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.report(run, images=images, display=display)
    benchmark = isinstance(found, api.BenchmarkResult)
    page = found.folder.leaderboard("html") if benchmark else found.folder.report
    echo(f"report:  {found.folder}/{page.name}")
