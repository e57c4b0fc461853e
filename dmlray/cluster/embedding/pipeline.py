"""Shards of vectors on Ray Data: actors with the model take one shard after the other.

What is done is a file, so that neither a lost node nor a killed driver costs more than the shards
in progress.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions

from dmlray.cluster.error_messages import as_dmlray_error
from dmlray.cluster.resources import Cluster
from dmlray.errors import RunError
from dmlray.inference import vector_files
from dmlray.inference.load import load_model
from dmlray.inference.shards import ShardWriter
from dmlray.inference.vector_files import About
from dmlray.learn.device import device_of, set_threads

_TRIES = 3  # in a row in which no shard was finished


class ShardActor:
    """Holds the model on one GPU, or on one CPU core; the results are files.

    Args:
        model: Folder of the model or run, which every node sees.
    """

    def __init__(self, model: str, folder: str, about: About, strict: bool) -> None:
        has = ray.get_runtime_context().get_assigned_resources()
        set_threads(max(1, int(has.get("CPU", 1))))
        device = device_of(has.get("GPU", 0.0) > 0)
        self._writer = ShardWriter(load_model(model), Path(folder), about, device, strict)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Write the shards that begin with the images `start`; how many images each is of."""
        return {"images": [self._writer.write(int(start)) for start in batch["start"]]}


def embed_shards(
    model: Path,
    folder: Path,
    about: About,
    cluster: Callable[[], Cluster],
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> About:
    """Embed what is missing in `folder` with every GPU of the cluster, or every CPU core.

    Args:
        model: Folder of the model or run, which every node sees.
        folder: Of the vectors, begun.
        about: What the folder describes itself as.
        strict: End at the first image that cannot be read.
        cluster: What there is now; asked again when a node is lost.
        progress: Called with (images done, images in all).

    Raises:
        ResourceError: If one actor does not fit on the cluster.
        DmlrayError: What ended it.
    """
    failures = 0
    while missing := list(vector_files.missing_parts(folder, about)):
        done = about.total - sum(end - start for start, end in missing)
        progress(done, about.total)
        before = done
        try:
            for images in _written(model, folder, about, missing, cluster(), strict):
                done += images
                progress(done, about.total)
        except ray.exceptions.RayActorError as error:
            failures = 0 if done > before else failures + 1
            if failures == _TRIES:
                why = str(error).splitlines()[0]
                raise RunError(f"{folder}: its processes died again and again: {why}") from None
        except ray.exceptions.RayTaskError as error:
            raise as_dmlray_error(error.cause) from None
    return about if about.complete else vector_files.finish(folder, about)


def _written(
    model: Path,
    folder: Path,
    about: About,
    missing: list[tuple[int, int]],
    cluster: Cluster,
    strict: bool,
) -> Iterator[int]:
    """Write the missing shards; yield the images of each as it is there."""
    gpus = 1.0 if cluster.has_gpus else 0.0
    cpus = cluster.fair_cpus(gpus)
    most = min(cluster.fit(cpus, gpus), len(missing))
    _quiet()
    # One block each from the start: a repartition is tasks, for whose CPU the actors leave nothing.
    items = [{"start": start} for start, _ in missing]
    written = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardActor,
        fn_constructor_args=(str(model.absolute()), str(folder.absolute()), about, strict),
        batch_size=1,
        num_cpus=cpus,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, max_tasks_in_flight_per_actor=1
        ),
        ray_remote_args_fn=_no_restarts,
    )
    for row in written.iter_rows():
        yield row["images"]


def _no_restarts() -> dict[str, int]:
    """An actor that is to be restarted would wait for what others hold."""
    return {"max_restarts": 0, "max_task_retries": 0}


def _quiet() -> None:
    """Keep Ray Data's own bars and logs away: dmlray shows its own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Also of errors, which are raised: it prints the whole trace of a lost node.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
