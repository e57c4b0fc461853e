"""A real cluster on this machine: a head and nodes, with token authentication."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
_STARTS = 3
_SMALL = ("--object-store-memory=100000000", "--include-log-monitor=false")


class Raylets:
    """A head without a core, and nodes that join it.

    Every one is a session, so that a kill is like that of a machine: workers lead process groups
    of their own and outlive their raylet by about a second.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = tempfile.mkdtemp(prefix="dc")  # sockets need a short path
        self._logs = Path(self._folder) / "logs"
        self._logs.mkdir()
        token = secrets.token_hex(32)
        self.environment = {
            **environment,
            "RAY_TMPDIR": self._folder,
            "RAY_prestart_worker_first_driver": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
        }
        port = self.address.split(":")[1]
        alone = ["--temp-dir", self._folder, "--include-dashboard=false", "--no-monitor"]
        self.head = self._start("--head", "--num-cpus=0", f"--port={port}", *alone)
        self.nodes = [self.head]

    def join(self, cpus: int = 1, gpus: int = 0) -> subprocess.Popen[bytes]:
        """Add a node; its GPUs are only numbers."""
        has = f"--num-cpus={cpus}", f"--num-gpus={gpus}"
        self.nodes.append(self._start(*has, f"--address={self.address}"))
        return self.nodes[-1]

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """Kill all processes of a node, as a power loss does."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                if os.getsid(int(process.name)) == node.pid:
                    os.kill(int(process.name), signal.SIGKILL)
        node.wait()

    def close(self) -> None:
        for node in self.nodes[::-1]:
            if node.poll() is None:
                self.lose(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a node; again where Ray gives up, which it does after 30 s of a busy machine."""
        for _ in range(_STARTS):
            log = self._logs / f"{len(list(self._logs.iterdir()))}.log"
            if node := self._started(words, log):
                return node
        raise AssertionError(log.read_text())

    def _started(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes] | None:
        with log.open("w") as out:
            node = subprocess.Popen(
                [RAY, "start", "--block", *_SMALL, *words],
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None:
                self.lose(node)  # its processes outlive the command
                return None
            time.sleep(0.2)
        return node
