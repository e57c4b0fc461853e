"""Embeddings of the test images for TensorBoard's projector: vectors, classes and pictures."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from PIL import Image

from dmlray.atomic_files import whole_file, write_text
from dmlray.data.cache.decode import decoded
from dmlray.errors import DataError, DmlrayError
from dmlray.learn.class_split import load_dataset
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable
from dmlray.results.comparison import resolved_plan
from dmlray.results.scored_images import ScoredImages, scored_images
from dmlray.scores import Scores

_LARGEST_SPRITE = 8192  # pixels, TensorBoard's limit
_SIDE, _SMALLEST = 64, 8  # pixels of a picture
_DIGITS = 6


def write_projector(folder: RunFolder, scores: Scores) -> str:
    """Write the test images of a run; return a sentence on the pictures, empty if all are there.

    TensorBoard finds them by projector_config.pbtxt in the run folder, which is written last.

    Raises:
        DmlrayError: If the run has no embeddings or its files are damaged.
    """
    images = scored_images(folder, scores)
    parts = folder.projector
    folder.make()
    parts.mkdir(exist_ok=True)
    with whole_file(parts / "vectors.tsv") as temporary:
        np.savetxt(temporary, images.rows.numpy(), fmt=f"%.{_DIGITS}g", delimiter="\t")
    write_text(parts / "classes.tsv", _table(images))
    side, note = _write_sprite(folder, images)
    write_text(folder.projector_config, _config(side))
    return note


def _config(side: int) -> str:
    """The text form of TensorBoard's ProjectorConfig; paths are relative to it."""
    sizes = f"single_image_dim: {side} single_image_dim: {side}"
    sprite = f'  sprite {{ image_path: "projector/sprite.png" {sizes} }}\n' if side else ""
    return (
        'embeddings {\n  tensor_name: "test images"\n  tensor_path: "projector/vectors.tsv"\n'
        f'  metadata_path: "projector/classes.tsv"\n{sprite}}}\n'
    )


def _table(images: ScoredImages) -> str:
    """Class and path of each image; control characters such as tabs are escaped."""
    rows = [("class", "path"), *zip(images.classes, images.files, strict=True)]
    return "".join(f"{printable(name)}\t{printable(file)}\n" for name, file in rows)


def _write_sprite(folder: RunFolder, images: ScoredImages) -> tuple[int, str]:
    """Write all pictures as one; return the side of each, 0 without, and what is missing."""
    columns = ceil(sqrt(len(images.files)))
    side = min(_SIDE, _LARGEST_SPRITE // columns)
    if side < _SMALLEST:
        return 0, f"no pictures in the projector: {len(images.files):,} images are too many"
    plan = resolved_plan(folder)
    try:
        if plan is None:
            return 0, "no pictures in the projector: the run does not say where they are"
        root, most = load_dataset(plan.experiment).root, plan.experiment.data.max_pixels
    except DmlrayError as error:
        return 0, f"no pictures in the projector: {error}"
    sprite, missing = _sprite(root, images.files, columns, side, most)
    packed = BytesIO()
    sprite.save(packed, "PNG")
    with whole_file(folder.projector / "sprite.png") as temporary:
        temporary.write_bytes(packed.getbuffer())
    return side, f"{missing} pictures are not where they were: grey in the projector" * bool(
        missing
    )


def _sprite(
    root: Path, files: Sequence[str], columns: int, side: int, max_pixels: int
) -> tuple[Image.Image, int]:
    """Pictures row by row, `columns` in each row; missing ones are grey."""
    sprite = Image.new("RGB", (columns * side, columns * side), "white")
    missing = 0
    for number, file in enumerate(files):
        corner = (number % columns * side, number // columns * side)
        try:
            picture = decoded(root / file, None, max_pixels).image
        except DataError:
            missing += 1
            picture = Image.new("RGB", (side, side), "#888888")
        picture.thumbnail((side, side), Image.Resampling.BILINEAR)
        left, top = (side - picture.width) // 2, (side - picture.height) // 2
        sprite.paste(picture, (corner[0] + left, corner[1] + top))
    return sprite, missing
