"""Compare versions, folders and GPUs of each node of a cluster with this machine."""

import os
import platform
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlray.cluster.ray_environment import WORKERS
from dmlray.errors import ResourceError
from dmlray.plans.run_folder import RunFolder

_PACKAGES = ("dmlray", "torch", "ray", "optuna")
_Inspection = tuple[str, dict[str, str], list[str], list[str]]
_ANSWER = 60.0  # seconds to wait for a node, which may have to start its first process


@dataclass(frozen=True)
class NodeReport:
    """Properties of a node.

    Attributes:
        missing: Folders that the node does not see or may not write to.
        silence: Why the node did not reply.
        unusable: GPUs that Ray offers but torch cannot use, with reasons.
    """

    name: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    silence: str | None = None
    unusable: tuple[str, ...] = ()


def examine(root: Path | None, out: Path) -> str:
    """Check all nodes and return one line about them.

    Raises:
        ConfigError: If `out` cannot hold run folders.
        ResourceError: Lists everything that nodes lack for a training.
    """
    RunFolder(out).check_writable()
    shared = _existing(out.absolute())
    marker = shared / f".dmlray-{uuid.uuid4().hex[:8]}"
    try:
        marker.touch()
        images = [str(root.expanduser().absolute())] if root else []
        reports = _inspect_all([*images, str(marker)])
    except OSError as error:
        raise ResourceError(f"{shared}: cannot be written to: {error.strerror}") from None
    finally:
        marker.unlink(missing_ok=True)
    here = NodeReport(
        "here", platform.python_version(), {name: version(name) for name in _PACKAGES}
    )
    listed = problems(here, reports, str(marker), str(shared))
    if listed:
        raise ResourceError("; ".join(listed))
    data = f", {root}" if root else ""
    return f"all {len(reports)} have these versions and see {shared}{data}"


def problems(
    here: NodeReport, reports: Sequence[NodeReport], marker: str, shared: str
) -> list[str]:
    """List the problems of all nodes, one clause each; `marker` is a file in `shared`."""
    listed = []
    for node in reports:
        if node.silence:
            listed.append(f"{node.name} does not answer: {node.silence}")
            continue
        for package, expected in [("python", here.python), *here.packages.items()]:
            installed = node.python if package == "python" else node.packages.get(package)
            if installed != expected:
                version_there = f"{package} {installed}" if installed else f"no {package}"
                listed.append(f"{node.name} has {version_there}, this machine {expected}")
        for path in node.missing:
            if path == marker:
                listed.append(f"{node.name} does not share {shared} with this machine (`out`)")
            else:
                listed.append(f"{node.name} does not see {path} (data.root)")
        listed += [f"{node.name}, {problem}" for problem in node.unusable]
    return listed


def _inspect_all(paths: list[str]) -> list[NodeReport]:
    """Return a report of each living node, with the access to `paths`."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    task = ray.remote(_inspection())
    replies = [
        task.options(
            num_cpus=0,
            max_retries=0,
            runtime_env={"env_vars": dict.fromkeys(WORKERS, "0")},  # it sees its node's GPUs
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(list(_PACKAGES), paths, node["Resources"].get("GPU", 0) > 0)
        for node in alive
    ]
    return [
        _answer(f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})", reference)
        for node, reference in zip(alive, replies, strict=True)
    ]


def _answer(name: str, reference: Any) -> NodeReport:
    try:
        python, packages, missing, unusable = ray.get(reference, timeout=_ANSWER)
    except GetTimeoutError:
        return NodeReport(name, "", silence=f"nothing for {_ANSWER:g} s")
    except RayError as error:
        return NodeReport(name, "", silence=" ".join(str(error).split())[-200:])
    return NodeReport(name, python, packages, tuple(missing), unusable=tuple(unusable))


def _inspection() -> Callable[[list[str], list[str], bool], _Inspection]:
    """Return a function that is pickled by value, because the node may not have dmlray."""

    def inspect(names: list[str], paths: list[str], gpus: bool) -> _Inspection:
        import os
        import platform
        import subprocess
        import sys
        from importlib.metadata import PackageNotFoundError, version

        packages = {}
        for name in names:
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                continue
        missing = [path for path in paths if not os.access(path, os.R_OK)]
        unusable: list[str] = []
        if gpus and "dmlray" in packages:  # a process that ends and so frees its GPU memory
            command = [sys.executable, "-m", "dmlray.learn.device"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=50)
            unusable = [line for line in answer.stdout.split("\n") if line]
        return platform.python_version(), packages, missing, unusable

    return inspect


def _existing(folder: Path) -> Path:
    """Return the folder or its closest existing parent."""
    return next(path for path in (folder, *folder.parents) if os.path.isdir(path))
