"""Addresses that are accepted, errors that name their source, and the cluster of `auto`."""

import os
from pathlib import Path

import pytest

from dmlray.cluster import address
from dmlray.cluster.address import Address, Raylet, read_address
from dmlray.errors import ConfigError, ResourceError


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return monkeypatch


@pytest.mark.parametrize("text", ["127.0.0.1:6379", "head.example:1", "[::1]:6379", "gpu_3:65535"])
@pytest.mark.parametrize("source", ["`address`", "RAY_ADDRESS"])
def test_host_and_port_are_an_address(variable: pytest.MonkeyPatch, source: str, text: str) -> None:
    assert read(variable, source, text) == Address(source, text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8265", "https://head:8265", "ray://127.0.0.1:10001", "nonsense", ":6379",
        "head:", "head:0", "head:65536", "head:123456", "head:+1", "head:\uff16379", "::1:6379",
        "user@head:6379", "head:6379/x", "head :6379", " ", "Auto", "LOCAL",
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["`address`", "RAY_ADDRESS"])
def test_other_text_is_refused_and_its_source_named(
    variable: pytest.MonkeyPatch, source: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=r"Allowed: HOST:PORT of a `ray start --head`") as caught:
        read(variable, source, text)
    assert caught.value.source == source


@pytest.mark.parametrize("source", ["`address`", "RAY_ADDRESS"])
def test_local_starts_ray_here(variable: pytest.MonkeyPatch, source: str) -> None:
    assert read(variable, source, "local") is None


def test_the_option_overrides_the_variable_except_for_auto(variable: pytest.MonkeyPatch) -> None:
    variable.setenv("RAY_ADDRESS", "head:6379")  # as in a job that Ray started
    assert read_address("other:1") == Address("`address`", "other:1")
    assert read_address("local") is None
    assert read_address("auto") == Address("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match="`address`: ''"):
        read_address("")
    variable.setenv("RAY_ADDRESS", "")
    assert read_address(None) is None


OWN, ROOT, OTHER = os.getuid(), 0, os.getuid() + 1
SHARED, PRIVATE = Path("/tmp/ray"), Path("/tmp/dml-0123abcd/r")


@pytest.mark.parametrize(
    ("running", "found"),
    [
        ([], "no cluster that you or root started"),
        ([(OTHER, SHARED, "a:1")], "no cluster that you or root started"),
        ([(OWN, PRIVATE, "a:1")], "no cluster that you or root started"),
        ([(OWN, SHARED, "a:1"), (OWN, PRIVATE, "b:1"), (OTHER, SHARED, "c:1")], Address("", "a:1")),
        ([(ROOT, SHARED, "a:1"), (ROOT, SHARED, "a:1")], Address("", "a:1")),
        ([(OWN, SHARED, "a:1"), (OWN, SHARED, "b:1")], r"of 2 clusters .*\(a:1, b:1\)"),
    ],
)
@pytest.mark.parametrize("source", ["`address`", "RAY_ADDRESS"])
def test_auto_is_the_only_cluster_that_this_user_or_root_started(
    variable: pytest.MonkeyPatch,
    source: str,
    running: list[tuple[int, Path, str]],
    found: str | Address,
) -> None:
    nodes = [Raylet("", head, owner, folder) for owner, folder, head in running]
    variable.setattr(address, "raylets", lambda: iter(nodes))
    if isinstance(found, Address):
        assert read(variable, source, "auto") == Address(source, found.text)
    else:
        with pytest.raises(ResourceError, match=f"{source}: auto: .*{found}"):
            read(variable, source, "auto")


def read(variable: pytest.MonkeyPatch, source: str, text: str) -> Address | None:
    if source == "`address`":
        return read_address(text)
    variable.setenv(source, text)
    return read_address(None)
