"""Vectors of images on a cluster; `inference.embed_files` makes them in one process."""

from collections.abc import Callable
from pathlib import Path

from dmlray.cluster.embedding.pipeline import embed_shards
from dmlray.cluster.resources import current_cluster
from dmlray.cluster.session import session
from dmlray.inference.embed_files import begin
from dmlray.inference.image_list import Sources
from dmlray.inference.load import load_model
from dmlray.inference.vector_files import About, Number
from dmlray.local_paths import path_of


def embed_on_cluster(
    model: str | Path,
    images: Sources,
    out: str | Path,
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
    source, folder = path_of("model", model), path_of("out", out)
    about = begin(load_model(source), images, folder, number, shard)
    with session(address):
        return embed_shards(source, folder, about, current_cluster, strict, progress)
