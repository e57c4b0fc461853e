"""The commands below `dmlray data`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo, echo_wrapped
from dmlray.errors import ConfigError

if TYPE_CHECKING:
    from dmlray.data.datasets.train_test import Split

ROOT = click.option("--root", type=PATH, help="Folder (csv: file) that holds the images.")
SPLIT = click.option(
    "--split",
    type=click.Choice(["classes", "given"]),
    default="classes",
    show_default=True,
    help="Which classes train, as data.split does: the first half, or as given by folder or csv.",
)


@click.group()
def data() -> None:
    """Data sets: list, prepare, verify, and the cache of decoded images."""


@data.command(name="list")
def list_data() -> None:
    """List the data sets that dmlray knows."""
    from dmlray.data.datasets import registry

    width = max(map(len, registry.names()))
    for name in registry.names():
        echo_wrapped(f"{name:<{width}} {registry.about(name)}")


@data.command()
@click.argument("name")
@ROOT
@SPLIT
@click.option(
    "--from",
    "sources",
    type=PATH,
    multiple=True,
    help="Official archive to unpack below --root; may be given again, also for cars_annos.mat.",
)
@click.option("--download", "fetched", is_flag=True, help="Fetch it from its public address.")
def prepare(
    name: str, root: Path | None, split: Split, sources: Sequence[Path], fetched: bool
) -> None:
    """Make, unpack or find the data set NAME and check that its images are there."""
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.prepare_data(name, root, sources, split, fetched=fetched, display=display)
    train_images = int((found.labels < found.train_classes).sum())
    echo(
        f"{found.name}: {len(found.classes)} classes, {len(found.files)} images; "
        f"train {found.train_classes} / {train_images}, "
        f"test {len(found.classes) - found.train_classes} / {len(found.files) - train_images}; "
        f"fingerprint {found.fingerprint}; in {found.root}"
    )
    for remark in found.remarks:
        echo(f"note: {remark}")


@data.command()
@click.argument("name")
@ROOT
@SPLIT
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    help="Larger images are unreadable, as with data.max_megapixels.",
)
def verify(name: str, root: Path | None, split: Split, max_megapixels: float | None) -> None:
    """Check the data set NAME: layout, counts, order of classes, every file; 1 if it is not well.

    Exit status 2 if no layout fits.
    """
    from dmlray import api
    from dmlray.reporting.progress import Display

    with Display() as display:
        found = api.verify_data(name, root, split, max_megapixels, display=display)
    echo(f"{'layout':<12} {found.layout}, in {found.root}")
    sides, roles = ("train", "test"), ("queries", "gallery")
    for what, names, has, wanted in (
        ("classes", sides, found.classes, found.expected_classes),
        ("images", sides, found.images, found.expected_images),
        ("test images", roles, found.retrieval, found.expected_retrieval),
    ):
        published = f" (published: {wanted[0]} / {wanted[1]})" if wanted else ""
        if has:
            echo(f"{what:<12} {names[0]} {has[0]} / {names[1]} {has[1]}{published}")
    echo(f"{'class order':<12} {found.class_order}")
    echo(f"{'fingerprint':<12} {found.fingerprint or 'none: not every file can be reached'}")
    unreadable = [f"{file}: {reason}" for file, reason in found.reasons.items()]
    for what, files in (("missing", found.missing), ("unreadable", unreadable)):
        for file in files[:20]:
            echo(f"  {what}: {file}")
        if len(files) > 20:
            echo(f"  {what}: {len(files) - 20} more")
    for note in found.notes:
        echo(f"note: {note}")
    for problem in found.problems:
        echo(f"problem: {problem}")
    echo("well" if found.is_sound else "NOT well")
    if not found.is_sound:
        sys.exit(1)


@data.group()
def cache() -> None:
    """Decoded images on this machine: each data set is decoded once and shared by all runs."""


@cache.command(name="list")
def list_cache() -> None:
    """List what lies in the cache, the last used first."""
    from dmlray.data.cache import inventory
    from dmlray.data.cache.image_cache import images_folder

    entries = inventory.listing()
    for entry in entries:
        side = f"short side {entry.short_side}" if entry.short_side else "as they are"
        gone = "" if entry.data_found else "  (the images themselves are gone)"
        echo_wrapped(
            f"{entry.folder.name:<32} {entry.bytes / 1e9:8.2f} GB  {entry.images:>7} images, "
            f"{side}, used {entry.last_used:%Y-%m-%d %H:%M}, of {entry.root}{gone}"
        )
    total = sum(entry.bytes for entry in entries) / 1e9
    echo(f"{len(entries)} caches, {total:.2f} GB in {images_folder()}")


@cache.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--unused-days", type=click.IntRange(0, 36_500), help="Only if not used for so long.")
def clear(names: Sequence[str], everything: bool, unused_days: int | None) -> None:
    """Remove caches by the name of the data set or of the cache, and what killed runs left."""
    from dmlray.data.cache import inventory

    if not names and not everything and unused_days is None:
        raise ConfigError(
            "command line", ["names no cache. Allowed: NAME..., --all, --unused-days N"]
        )
    since = None
    if unused_days is not None:
        since = datetime.now().astimezone() - timedelta(days=unused_days)
    cleared = inventory.clear(names or None, since)
    for entry in cleared.busy:
        echo(f"{entry.folder.name}: kept, a process is making it")
    freed = sum(entry.bytes for entry in cleared.removed) / 1e9
    echo(f"removed {len(cleared.removed)} caches, {freed:.2f} GB")
