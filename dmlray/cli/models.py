"""The commands that use what was trained; none starts Ray, except `embed --address`."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dmlray.cli.local_path import PATH
from dmlray.cli.output import echo, echo_wrapped
from dmlray.errors import Call, ConfigError, Interrupted

if TYPE_CHECKING:
    from dmlray.inference.index import Kind
    from dmlray.inference.search import Hit
    from dmlray.inference.vector_files import About

MODEL = click.argument("model", type=PATH, metavar="MODEL|RUN")
DEVICE = click.option("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one.")


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


@click.command()
@MODEL
@click.argument("images", nargs=-1, type=PATH, required=True, metavar="IMAGES...")
@click.option("--out", type=PATH, required=True, metavar="VECTORS", help="Folder; resumable.")
@click.option("--half", is_flag=True, help="Keep vectors in float16.")
@click.option("--shard", type=click.IntRange(1, 1_000_000), help="Images of each file.")
@click.option("--address", help="Embed on this Ray cluster; `local`: on a Ray of this machine.")
@click.option("--strict", is_flag=True, help="End at the first image that cannot be read.")
@DEVICE
def embed(
    model: Path,
    images: Sequence[Path],
    out: Path,
    half: bool,
    address: str | None,
    device: str | None,
    **options: Any,
) -> None:
    """Embed IMAGES: a folder, a CSV or parquet file with the column path, or image files.

    Without --address and RAY_ADDRESS, or with --device, in this process on one device. The same
    command goes on where it was interrupted.
    """
    from dmlray.reporting.progress import Display

    options["number"] = "float16" if half else "float32"
    if address and device:
        raise ConfigError("--device", ["is of one process. Allowed: without --address"])
    address = address or (None if device else os.environ.get("RAY_ADDRESS"))
    try:
        with Display() as display:
            options["progress"] = display.count_images("embedding images")
            about = _embed(model, images, out, address, device, options)
    except Interrupted as error:
        given = {"model": model, "images": images, **click.get_current_context().params}
        error.resume = Call("embed", {name: _word(value) for name, value in given.items() if value})
        raise
    echo(f"vectors:      {out}, {about.count} of {about.dimension} dimensions")
    if about.failed:
        echo(f"failed:       {about.failed} images, listed in {out / 'failed.csv'}")


def _word(value: Any) -> str | bool | list[str]:
    """A parameter's value, as a call has it."""
    if value is True:
        return True
    return [str(each) for each in value] if isinstance(value, tuple) else str(value)


def _embed(
    model: Path,
    images: Sequence[Path],
    out: Path,
    address: str | None,
    device: str | None,
    options: dict[str, Any],
) -> About:
    """On a cluster, where there is one, or in this process."""
    if address:
        from dmlray.api.embedding import embed_on_cluster

        return embed_on_cluster(model, images, out, address=address, **options)
    from dmlray.inference.embed_files import embed

    return embed(model, images, out, device=device, **options)


@click.command()
@MODEL
@click.argument("vectors", type=PATH)
@click.argument("images", nargs=-1, type=PATH, required=True, metavar="IMAGE...")
@click.option("-k", type=int, default=10, show_default=True, help="Neighbours of each image.")
@click.option("--index", is_flag=True, help="Use the index of dmlray index: quicker, not exact.")
@click.option(
    "--threshold",
    metavar="auto|NUMBER",
    help="Mark matches: from this cosine on; auto: 1 of 1,000 different pairs, see the model card.",
)
@click.option("--html", type=PATH, metavar="PAGE", help="Also a page with small pictures.")
@click.option("--csv", "table", type=PATH, metavar="FILE", help="Also a CSV file.")
@DEVICE
def query(
    model: Path,
    vectors: Path,
    images: Sequence[Path],
    k: int,
    threshold: str | None,
    html: Path | None,
    table: Path | None,
    **options: Any,
) -> None:
    """Find the nearest of VECTORS to each IMAGE, exactly where no --index is used."""
    for file in filter(None, (html, table)):
        _require_writable(file)
    if html and html == table:
        raise ConfigError(str(html), ["is the file of --html and of --csv. Allowed: two files"])
    from dmlray.atomic_files import write_text
    from dmlray.inference.load import load_model
    from dmlray.inference.search import cosine_of, query

    loaded = load_model(model)
    limit = None if threshold is None else cosine_of(threshold, loaded)
    found = query(loaded, vectors, list(images), k, threshold=limit, **options)
    if limit is not None:
        echo(f"match:        cosine of at least {limit:.4f}")
    for image, hits in zip(images, found, strict=True):
        echo(f"{image}")
        for hit in hits:
            label = f"  {hit.label}" if hit.label is not None else ""
            mark = "" if hit.match is None else f"  {'match' if hit.match else 'no match':8}"
            echo_wrapped(f"  {hit.rank:>3}  {hit.similarity:.4f}{mark}  {hit.path}{label}")
    if table:
        write_text(table, _csv(images, found))
    if html:
        from dmlray.reporting.query_page import query_page

        write_text(html, query_page(images, found, loaded.protocol, limit))
        echo(f"page:         {html}")


@click.command()
@click.argument("vectors", type=PATH)
@click.option("--kind", type=click.Choice(["flat", "hnsw", "ivfpq"]), default="hnsw")
def index(vectors: Path, kind: Kind) -> None:
    """Write a faiss index of VECTORS and report its recall against the exact search."""
    from dmlray.inference.index import FILE, build_index
    from dmlray.reporting.progress import Display

    with Display() as display:
        made = build_index(vectors, kind, display.count("vectors indexed"))
    size = (vectors / FILE).stat().st_size
    echo(f"index:        {vectors / FILE}, {kind} of {made.count} vectors, {size / 1e6:,.1f} MB")
    echo(
        f"recall@10:    {100 * made.recall_at_10:.1f} % of the exact search, {made.sample} queries"
    )


def _require_writable(file: Path) -> None:
    """Check that a file can be written, before anything slow."""
    folder = file.parent
    if not folder.is_dir() or file.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(str(file), ["cannot be written. Allowed: a file in another folder"])


def _csv(images: Sequence[Path], found: Sequence[Sequence[Hit]]) -> str:
    """One line for each neighbour, with all columns of its image."""
    names = list(dict.fromkeys(name for hits in found for hit in hits for name in hit.columns))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    marked = any(hit.match is not None for hits in found for hit in hits)
    writer.writerow(("query", "rank", "similarity", *(["match"] if marked else []), *names))
    for image, hits in zip(images, found, strict=True):
        for hit in hits:
            cells = [hit.columns.get(name, "") for name in names]
            match = ["yes" if hit.match else "no"] if marked else []
            writer.writerow((image, hit.rank, f"{hit.similarity:.6f}", *match, *cells))
    return text.getvalue()
