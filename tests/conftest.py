"""Settings for every test: one thread per process, so that numbers repeat and cores are shared."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import golden_vectors

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process of Ray would compile the package
os.environ.update(RAY_worker_niceness="0")  # else workers of Ray wait for the other tests
_STARTUP = str(Path(__file__).with_name("startup"))
os.environ["PYTHONPATH"] = os.pathsep.join([_STARTUP, *filter(None, [os.getenv("PYTHONPATH")])])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with these
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored: in the background, or under nohup
FOLDERS = ("backbones", "drml", "idml_dcml", "rcdml_dreml")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use one process more than there are cores: tests that start Ray wait much of their time."""
    return min(8, len(os.sched_getaffinity(0)) + 1)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is `slow`; tests that share an expensive fixture run in one process."""
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _group(item: pytest.Item) -> str | None:
    """Return the place of a shared fixture: a module, or the folder of trained `runs`."""
    info = getattr(item, "_fixtureinfo", None)
    found = {} if info is None else info.name2fixturedefs
    if "runs" in found:
        return str(found["runs"][-1].baseid)
    shared = any(definitions[-1].scope == "module" for definitions in found.values())
    return item.nodeid.partition("::")[0] if shared else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Add the golden files that a process of pytest-xdist has read."""
    golden_vectors.consumed.update(node.workeroutput["golden"])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail if there is a golden file that no test has read."""
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker["golden"] = sorted(golden_vectors.consumed)
        return
    everything = session.config.args == session.config.getini("testpaths")
    options = session.config.option
    partial = options.keyword or options.markexpr or options.collectonly
    if not everything or partial or exitstatus:
        return
    found = {
        str(path) for folder in FOLDERS for path in (golden_vectors.ROOT / folder).glob("*.npz")
    }
    unread = sorted(found - golden_vectors.consumed)
    if unread:
        print(f"\ngolden files that no test has read: {', '.join(unread)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
