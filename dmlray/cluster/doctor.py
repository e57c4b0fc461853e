"""Checks of an installation and a cluster for `dmlray doctor`."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dmlray import backbones
from dmlray.atomic_files import storage_error
from dmlray.cluster import node_checks
from dmlray.cluster.session import session
from dmlray.data.cache.image_cache import cache_folder
from dmlray.data.datasets import registry
from dmlray.errors import DmlrayError, ResourceError
from dmlray.learn.environment import versions

_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One line of `dmlray doctor`."""

    what: str
    well: bool
    found: str


def examine(address: str | None, root: Path | None, out: Path) -> Iterator[Check]:
    """Yield the checks one by one; a failure does not prevent the next ones.

    Args:
        address: Ray cluster to join; None: RAY_ADDRESS or a new one.
        root: Image folder that every node must see, if any.
        out: Folder of run folders, which every node must write to.
    """
    checks: dict[str, Callable[[], str]] = {
        "versions": lambda: " ".join(f"{name} {number}" for name, number in versions().items()),
        "devices": _devices,
        "disk": _disk,
        "weights": _weights,
        "data": _data,
    }
    for what, check in checks.items():
        yield _checked(what, check)
    try:
        with session(address) as cluster:
            size = f"{cluster.nodes} nodes, {cluster.cpus:g} CPU, {cluster.gpus:g} GPU"
            yield Check("ray", True, f"{address or 'started here'}: {size}")
            yield _checked("nodes", lambda: node_checks.examine(root, out))
    except DmlrayError as error:
        yield Check("ray", False, str(error))


def _checked(what: str, check: Callable[[], str]) -> Check:
    try:
        return Check(what, True, check())
    except (DmlrayError, OSError) as error:
        return Check(what, False, str(storage_error(error) or error))


def _devices() -> str:
    cpus = f"{torch.get_num_threads()} CPU threads"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join([cpus, *gpus]) if gpus else f"{cpus}, no GPU"


def _disk() -> str:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / _GIB
    if free < 1:
        raise ResourceError(f"{free:.1f} GiB free for {folder}. Allowed: at least 1 GiB")
    return f"{free:.0f} GiB free for {folder}"


def _weights() -> str:
    backbones.build("efficientnet_lite0")
    return "efficientnet_lite0 (packaged)"


def _data() -> str:
    dataset = registry.load("demo", None)
    return f"demo: {len(dataset.classes)} classes, {len(dataset.files)} images"
