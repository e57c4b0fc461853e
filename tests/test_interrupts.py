"""Only the first signal ends a command, whenever it arrives."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dmlray.errors import Interrupted
from dmlray.interrupts import SIGNALS, interruptible

each_signal = pytest.mark.parametrize("number", SIGNALS)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@each_signal
def test_the_first_signal_ends_the_block_and_later_ones_change_nothing(number: int) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted) as caught, interruptible():
        try:
            send(number)
        finally:
            for later in SIGNALS:
                send(later)
    assert caught.value.exit_status == 128 + number
    assert [signal.getsignal(n) for n in SIGNALS] == before


@each_signal
def test_a_deferred_signal_is_raised_at_the_end_of_the_block(number: int) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interruptible() as signals:
        with signals.held():
            send(number)
            done.append("held")
        done.append("not reached")
    assert (done, signals.received) == (["held"], number)


@each_signal
def test_in_ray_it_is_the_exception_that_ray_passes_on(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as signals, signals.in_ray():
        send(number)


def test_inner_blocks_and_other_threads_keep_the_handlers() -> None:
    with interruptible() as outer:
        handler = signal.getsignal(signal.SIGTERM)
        with interruptible() as inner:
            assert inner is outer
        thread = threading.Thread(target=lambda: interruptible().__enter__())
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) == handler


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


COMMAND = """
import atexit, os, signal, sys, time
from pathlib import Path
from dmlray.interrupts import SIGNALS, interruptible
def send_all():
    for number in SIGNALS:
        os.kill(os.getpid(), number)
number, when = int(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(Path(__file__).parent / "other"))
try:
    with interruptible(command=Path(__file__).parent / "command"):
        if when == "forked":
            there, here = os.pipe()
            if child := os.fork():
                os.read(there, 1)
                os.kill(child, number)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
            os.write(here, b"x")
            time.sleep(20)
            os._exit(0)
        sys.path.insert(0, str(Path(__file__).parent / "command"))
        import entry
        entry.run(when)
        time.sleep(20)
except BaseException as error:
    print(type(error).__name__)
atexit.register(send_all)
send_all()
sys.exit(3)
"""


@each_signal
def test_while_the_command_line_imports_the_process_ends_at_once(
    tmp_path: Path, number: int
) -> None:
    ended = run(tmp_path, number, "imported by the command line")
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", "interrupted\n")


@each_signal
def test_while_something_else_imports_the_signal_waits_for_the_import(
    tmp_path: Path, number: int
) -> None:
    """Raised there, it could become an ImportError or be caught. No signal breaks the exit."""
    ended = run(tmp_path, number, "imported by another module")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "imported\nInterrupted\n", "")


def test_a_forked_process_has_default_handlers(tmp_path: Path) -> None:
    ended = run(tmp_path, signal.SIGTERM, "forked")
    assert (ended.returncode, ended.stdout + ended.stderr) == (256 - signal.SIGTERM, "")


def run(folder: Path, number: int, when: str) -> subprocess.CompletedProcess[str]:
    """COMMAND in a separate process, where a module sends a signal while it is imported."""
    for name in ("command", "other"):
        (folder / name).mkdir()
    (folder / "command" / "entry.py").write_text(
        textwrap.dedent("""
            def run(when):
                if "another" in when:
                    import importer
                    importer.run()
                else:
                    import sender
        """)
    )
    (folder / "other" / "importer.py").write_text("def run():\n    import sender\n")
    (folder / "other" / "sender.py").write_text(
        "import os, sys, time\n"
        "try:\n    os.kill(os.getpid(), int(sys.argv[1]))\n    time.sleep(0.3)\n"
        "except BaseException:\n    raise ImportError('as numpy does') from None\n"
        "print('imported')\n"
    )
    (folder / "main.py").write_text(COMMAND)
    return subprocess.run(
        [sys.executable, str(folder / "main.py"), str(number), when],
        capture_output=True,
        text=True,
        timeout=30,
    )
