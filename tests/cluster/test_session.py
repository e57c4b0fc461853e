"""What the cluster can never give is refused at once; signals end a session, also an early one."""

import os
import signal
from pathlib import Path

import pytest

from dmlray.cluster.search import resources_of
from dmlray.cluster.session import Cluster, session
from dmlray.errors import ConfigError, Interrupted, ResourceError
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
def test_trials_fill_the_cluster_and_never_more(
    cluster: Cluster, words: list[str], workers: int, at_once: int
) -> None:
    resources = resources_of(search(*words), cluster)
    assert (resources.workers, resources.at_once) == (workers, at_once)
    assert resources.at_once * resources.workers * resources.gpus <= cluster.gpus


def test_an_address_where_nothing_answers_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with (
        pytest.raises(ResourceError, match=r"no Ray cluster answers at 127\.0"),
        session("127.0.0.1:9"),
    ):
        pass
    with pytest.raises(ConfigError, match="Allowed: HOST:PORT"), session("nonsense"):
        pass
    assert "RAY_AUTH_MODE" not in os.environ  # a Ray of our own would not start with it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("early", [True, False], ids=["while Ray starts", "in the block"])
def test_a_signal_ends_a_session_once_ray_is_up(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, early: bool
) -> None:
    done: list[str] = []

    def connect(address: str | None) -> None:
        if early:
            os.kill(os.getpid(), number)
        done.append("up")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray, too, leaves one of its own

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: done.append("down"))
    monkeypatch.setattr("dmlray.cluster.session._connect", connect)
    monkeypatch.setattr("dmlray.cluster.session.living", lambda: Cluster(2, 0, 1))
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, session():
        done.append("in use")
        os.kill(os.getpid(), number)
        done.append("still in use")
    assert caught.value.exit_status == 128 + number
    assert done == ["up", *(["in use"] if not early else []), "down"]
    assert signal.getsignal(number) == before
