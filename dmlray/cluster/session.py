"""Join or start Ray, and leave it cleanly in every case."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import ray

from dmlray.cluster.address import read_address
from dmlray.cluster.join import joined
from dmlray.cluster.local_ray import started
from dmlray.cluster.ray_environment import QUIET
from dmlray.cluster.resources import Cluster, current_cluster
from dmlray.errors import Interrupted
from dmlray.interrupts import Interrupts, interruptible


@contextmanager
def session(
    address: str | None = None, log: Callable[[str], None] = lambda text: None
) -> Iterator[Cluster]:
    """Join the cluster at `address` or RAY_ADDRESS, or start Ray here; yield its resources.

    If this process is connected to Ray already, use that connection and keep it; else `log` is
    called with what Ray offers.

    Raises:
        ConfigError: If the address is invalid, or its token is missing or unusable.
        ResourceError: If Ray cannot be reached or started.
        Interrupted: On a signal, which is a KeyboardInterrupt inside the block.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with interruptible() as signals:
        try:
            connected = ray.is_initialized()
            with signals.in_ray(), _ray(address, signals):
                cluster = current_cluster()
                if not connected:
                    log(f"running on {cluster}")
                yield cluster
        except KeyboardInterrupt:
            raise Interrupted(signals.received or signal.SIGINT) from None


@contextmanager
def _ray(address: str | None, signals: Interrupts) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    with ExitStack() as stack:
        with signals.held():  # a partly started Ray could not be stopped
            cluster = read_address(address)
            stack.enter_context(joined(cluster) if cluster else started())
        try:
            yield
        finally:
            with signals.held():
                stack.close()
