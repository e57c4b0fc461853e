"""The commands that use what was trained; none of them starts Ray, except `embed --address`."""

from __future__ import annotations

from pathlib import Path

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo


@click.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="MODEL", help="New folder.")
@click.option("--onnx", is_flag=True, help="Also embed.onnx, checked on real images.")
@click.option("--half", is_flag=True, help="Keep the weights in float16.")
@click.option("--images", type=PATH, help="Images to check with; default: test images of the run.")
def export(run: Path, out: Path, onnx: bool, half: bool, images: Path | None) -> None:
    """Write the model of the finished RUN as a folder that needs no run and no images."""
    from dmlray.inference.export import export, onnx_line

    made = export(run, out, onnx=onnx, half=half, images=images)
    size = sum(file.stat().st_size for file in out.iterdir())
    echo(f"model:        {out}, {made.model.dimension}-d, {size / 1e6:,.1f} MB")
    echo(f"fingerprint:  {made.model.fingerprint}")
    if made.half_difference is not None:
        where = f"on {made.images} images"
        echo(f"float16:      vectors differ by at most {made.half_difference:.1e} {where}")
    if made.onnx_difference is not None:
        echo(f"embed.onnx:   {onnx_line(made.onnx_difference, made.images)}")
