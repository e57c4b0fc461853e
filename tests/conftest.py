"""Settings for every test: one thread per process, so that numbers repeat and cores are shared."""

import os
import signal

import pytest

from tests import golden

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with these
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored: in the background, or under nohup
ROOMS = ("backbones", "drml", "idml_dcml", "rcdml_dreml")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A golden file that no test has read is a promise that nobody keeps: the suite fails."""
    everything = session.config.args == session.config.getini("testpaths")
    if not everything or session.config.option.keyword or exitstatus:
        return
    found = {path for room in ROOMS for path in (golden.ROOT / room).glob("*.npz")}
    unread = sorted(str(path.relative_to(golden.ROOT)) for path in found - golden.consumed)
    if unread:
        print(f"\ngolden files that no test has read: {', '.join(unread)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
