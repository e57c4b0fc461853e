"""Vectors of images on a cluster; `inference.embed_files` makes them in one process."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dmlray.cluster.embedding.pipeline import embed_shards
from dmlray.cluster.resources import current_cluster
from dmlray.cluster.session import session
from dmlray.inference.embed_files import begin
from dmlray.inference.load import load_model
from dmlray.inference.vector_files import About, Number


def embed_on_cluster(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    number: Number = "float32",
    shard: int | None = None,
    strict: bool = False,
    address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> About:
    """Embed images into the folder `out` on Ray Data; all nodes see model, images and folder.

    Args:
        model: Folder of a model or of a finished run.
        images: A folder, a table of paths, or files, see `inference.image_list`.
        out: Folder of the vectors; one that was begun goes on.
        number: Of vectors in the files.
        shard: Images of each file, which is what a kill costs.
        strict: End at the first image that cannot be read, instead of listing it in `failed.csv`.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        progress: Called with (images done, images in all).
    """
    about = begin(load_model(model), images, out, number, shard)
    with session(address):
        return embed_shards(model, out, about, current_cluster, strict, progress)
