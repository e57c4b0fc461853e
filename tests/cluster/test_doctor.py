"""Each way in which a node or a cluster can be unfit is said in words of its own."""

from pathlib import Path

import pytest

from dmlray.cluster import session as module
from dmlray.cluster.nodes import Node, complaints
from dmlray.cluster.session import session
from dmlray.errors import ResourceError

HERE = Node("here", "3.11.7", {"dmlray": "1", "torch": "2", "ray": "3"})


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Node("n", "3.11.7", {"dmlray": "1", "torch": "2", "ray": "3"}), []),
        (Node("n", "3.12.0", HERE.packages), ["n has python 3.12.0, this machine 3.11.7"]),
        (Node("n", "3.11.7", {"torch": "2", "ray": "3"}), ["n has no dmlray, this machine 1"]),
        (
            Node("n", "3.11.7", {**HERE.packages, "torch": "9"}),
            ["n has torch 9, this machine 2"],
        ),
        (Node("n", "", silence="nothing for 60 s"), ["n does not answer: nothing for 60 s"]),
        (
            Node("n", "3.11.7", HERE.packages, ("/runs/.mark", "/images")),
            ["n does not share /runs with this machine (--out)", "n does not see /images (data.ro"],
        ),
        (
            Node("n", "3.11.7", HERE.packages, unusable=("GPU 1: torch cannot use this GPU",)),
            ["n, GPU 1: torch cannot use this GPU"],
        ),
    ],
)
def test_what_a_node_lacks_is_told(node: Node, said: list[str]) -> None:
    found = complaints(HERE, [node], "/runs/.mark", "/runs")
    assert len(found) == len(said)
    for ours, expected in zip(found, said, strict=True):
        assert ours.startswith(expected)


@pytest.mark.parametrize(
    ("token", "mode", "error", "said"),
    [
        (None, None, "Failed to connect to Ray cluster.", "No token was found here"),
        ("abc", None, "Failed to connect to Ray cluster.", "token here is not the head's"),
        ("abc", "disabled", "Failed to connect", "Set RAY_AUTH_MODE=token"),
        ("abc", "token", "Version mismatch: Ray: 2.1\nPython: 3.9", "Ray: 2.1 Python: 3.9 Allowed"),
    ],
)
def test_why_a_cluster_did_not_take_us_is_told(
    token: str | None,
    mode: str | None,
    error: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**options: object) -> None:
        raise ConnectionError(error)

    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("RAY_AUTH_TOKEN", token), ("RAY_AUTH_MODE", mode)):
        monkeypatch.setenv(name, value or "x")  # so that what the session sets is put back
        if value is None:
            monkeypatch.delenv(name)
    monkeypatch.setattr(module, "_must_answer", lambda address: None)
    monkeypatch.setattr(module.ray, "init", refuse)
    with pytest.raises(ResourceError, match="cannot use Ray at h:1: ") as caught, session("h:1"):
        pass
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
