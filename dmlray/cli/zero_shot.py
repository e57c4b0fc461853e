"""The command `dmlray zero-shot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dmlray.cli.local_path import PATH, split_words
from dmlray.cli.output import echo
from dmlray.errors import Call, Interrupted


@click.command("zero-shot")
@click.argument("words", nargs=-1, metavar="[EXPERIMENT] [KEY=VALUE]...")
@click.option("--backbones", required=True, metavar="A,B,...", help="NAME or NAME:POOLING of each.")
@click.option("--out", type=PATH, help="Run folder; default runs/NAME_zero_shot. Resumable.")
def zero_shot(words: Sequence[str], backbones: str, out: Path | None) -> None:
    """Compare frozen backbones on your images; nothing is trained.

    The same command goes on where it was interrupted.
    """
    from dmlray import api
    from dmlray.reporting.backbone_table import print_backbones
    from dmlray.reporting.progress import Display

    file, overrides = split_words(words)
    names = [name.strip() for name in backbones.split(",") if name.strip()]
    try:
        with Display() as display:
            comparison, folder = api.zero_shot(
                file, overrides, backbones=names, out=out, display=display
            )
    except Interrupted as error:
        error.resume = error.resume and _again(words, backbones, out)
        raise
    print_backbones(comparison)
    echo(f"run folder:   {folder}")


def _again(words: Sequence[str], backbones: str, out: Path | None) -> Call:
    given = {"words": list(words), "backbones": backbones, "out": out and str(out)}
    return Call("zero_shot", {name: value for name, value in given.items() if value})
