"""What each node of a cluster has and sees, compared with this machine."""

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
_Look = tuple[str, dict[str, str], list[str], list[str]]
_ANSWER = 60.0  # seconds that a node has: it may have to start its first process


@dataclass(frozen=True)
class NodeReport:
    """What a node said. `missing` are the folders that it does not see or may not write to.

    `unusable` are the GPUs that Ray gives there and torch cannot use, with reasons.
    """

    name: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    silence: str | None = None
    unusable: tuple[str, ...] = ()


def examine(root: Path | None, out: Path) -> str:
    """One line on the nodes.

    Raises:
        ConfigError: If `out` cannot hold run folders.
        ResourceError: If some lack what a training needs; all of it is said.
    """
    RunFolder(out).check_writable()
    shared = _existing(out.absolute())
    marker = shared / f".dmlray-{uuid.uuid4().hex[:8]}"
    try:
        marker.touch()
        sights = [str(root.expanduser().absolute())] if root else []
        found = _ask([*sights, str(marker)])
    except OSError as error:
        raise ResourceError(f"{shared}: cannot be written to: {error.strerror}") from None
    finally:
        marker.unlink(missing_ok=True)
    here = NodeReport(
        "here", platform.python_version(), {name: version(name) for name in _PACKAGES}
    )
    wrong = problems(here, found, str(marker), str(shared))
    if wrong:
        raise ResourceError("; ".join(wrong))
    data = f", {root}" if root else ""
    return f"all {len(found)} have these versions and see {shared}{data}"


def problems(here: NodeReport, found: Sequence[NodeReport], marker: str, shared: str) -> list[str]:
    """What is wrong with each node, one clause each; `marker` was put into the folder `shared`."""
    wrong = []
    for node in found:
        if node.silence:
            wrong.append(f"{node.name} does not answer: {node.silence}")
            continue
        for package, ours in [("python", here.python), *here.packages.items()]:
            theirs = node.python if package == "python" else node.packages.get(package)
            if theirs != ours:
                said = f"{package} {theirs}" if theirs else f"no {package}"
                wrong.append(f"{node.name} has {said}, this machine {ours}")
        for path in node.missing:
            if path == marker:
                wrong.append(f"{node.name} does not share {shared} with this machine (`out`)")
            else:
                wrong.append(f"{node.name} does not see {path} (data.root)")
        wrong += [f"{node.name}, {problem}" for problem in node.unusable]
    return wrong


def _ask(paths: list[str]) -> list[NodeReport]:
    """What each living node says of itself and of `paths`."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    task = ray.remote(_looker())
    asked = [
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
        for node, reference in zip(alive, asked, strict=True)
    ]


def _answer(name: str, reference: Any) -> NodeReport:
    try:
        python, packages, missing, unusable = ray.get(reference, timeout=_ANSWER)
    except GetTimeoutError:
        return NodeReport(name, "", silence=f"nothing for {_ANSWER:g} s")
    except RayError as error:
        return NodeReport(name, "", silence=" ".join(str(error).split())[-200:])
    return NodeReport(name, python, packages, tuple(missing), unusable=tuple(unusable))


def _looker() -> Callable[[list[str], list[str], bool], _Look]:
    """A function that travels whole, for the node may not have dmlray."""

    def look(names: list[str], paths: list[str], gpus: bool) -> _Look:
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
        if gpus and "dmlray" in packages:  # in a process that keeps no memory of the GPUs
            command = [sys.executable, "-m", "dmlray.learn.device"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=50)
            unusable = [line for line in answer.stdout.split("\n") if line]
        return platform.python_version(), packages, missing, unusable

    return look


def _existing(folder: Path) -> Path:
    """The folder, or the one above it where it would be made."""
    return next(path for path in (folder, *folder.parents) if os.path.isdir(path))
