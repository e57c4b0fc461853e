"""Requests that never fit are refused at once; signals end a session, also during its start."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dmlray.cluster.resources import Cluster
from dmlray.cluster.search.run import resources_of
from dmlray.cluster.session import session
from dmlray.errors import Interrupted, ResourceError
from dmlray.interrupts import SIGNALS
from dmlray.plans.search import Search, read_search

SEARCH = Path("searches/proxy_anchor_demo.yaml")


def search(*words: str) -> Search:
    return read_search(SEARCH, list(words))


def test_a_request_that_never_fits_is_refused_with_the_numbers() -> None:
    laptop = Cluster(cpus=2, gpus=0, nodes=1)
    with pytest.raises(ResourceError, match=r"asked for 1 CPU and 4 GPU .* has 2 CPU and 0 GPU"):
        resources_of(search("gpus=4"), laptop)
    with pytest.raises(ResourceError, match="asked for 3 CPU"):
        resources_of(search("cpus=3"), laptop)


@pytest.mark.parametrize(
    ("cluster", "words", "workers", "at_once"),
    [
        (Cluster(2, 0, 1), [], 1, 2),  # one trial per core, its folds in turn
        (Cluster(16, 4, 1), [], 2, 2),  # a GPU for each of two folds
        (Cluster(16, 1, 1), [], 1, 1),  # one GPU: the folds take turns
        (Cluster(16, 1, 1), ["gpus=0.5"], 2, 1),  # or share it
        (Cluster(16, 4, 1), ["trials_at_once=1"], 2, 1),
        (Cluster(64, 0, 1), ["trials=3"], 1, 3),  # no more than there are
    ],
)
def test_trials_fill_the_cluster_and_not_more(
    cluster: Cluster, words: list[str], workers: int, at_once: int
) -> None:
    resources = resources_of(search(*words), cluster)
    assert (resources.workers, resources.at_once) == (workers, at_once)
    assert resources.at_once * resources.workers * resources.gpus <= cluster.gpus


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("early", [True, False], ids=["while Ray starts", "in the block"])
def test_a_signal_ends_a_session_after_the_start_and_later_ones_are_ignored(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, early: bool
) -> None:
    done: list[str] = []

    @contextmanager
    def started() -> Iterator[None]:
        if early:
            os.kill(os.getpid(), number)
        done.append("up")
        try:
            yield
        finally:
            for later in SIGNALS:
                os.kill(os.getpid(), later)
            done.append("down")

    alone(monkeypatch, started)
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted) as caught, session():
        done.append("in use")
        os.kill(os.getpid(), number)
        done.append("still in use")
    assert caught.value.exit_status == 128 + number
    assert done == ["up", *(["in use"] if not early else []), "down"]
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_session_in_another_thread_handles_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch, lambda: nullcontext())
    found: list[Cluster] = []

    def use() -> None:
        with session() as cluster:
            found.append(cluster)

    thread = Thread(target=use)
    thread.start()
    thread.join()
    assert found == [Cluster(2, 0, 1)]


def alone(monkeypatch: pytest.MonkeyPatch, started: Callable[[], Any]) -> None:
    """Replace `started`; no Ray runs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("dmlray.cluster.session.started", started)
    monkeypatch.setattr("dmlray.cluster.session.current_cluster", lambda: Cluster(2, 0, 1))
