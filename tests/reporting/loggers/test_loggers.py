"""One factory makes every logger; what is unknown or not installed is refused in one sentence."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import loggers


class Notes:
    """Notes each call."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder.path

    def __getattr__(self, name: str) -> Any:
        return lambda *values: Notes.calls.append((name, *values))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of two loggers that are modules of the package, as files of it would be."""
    names = ["first", "second"]
    Notes.calls = []
    for name in names:
        module = ModuleType(name)
        module.RunLogger = Notes  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"{loggers.__name__}.{name}", module)
    monkeypatch.setattr(loggers, "names", lambda: names)
    return names


def test_every_logger_gets_every_call(two: list[str], tmp_path: Path) -> None:
    logger = loggers.open_logger(RunFolder(tmp_path / "run"), two)
    logger.scalars(1, {"train/loss": 0.5})
    logger.hparams({"lr": 0.1}, {"train/loss": 0.5})
    logger.close()
    assert (tmp_path / "run").is_dir()
    expected = [
        ("scalars", 1, {"train/loss": 0.5}),
        ("hparams", {"lr": 0.1}, {"train/loss": 0.5}),
        ("close",),
    ]
    assert Notes.calls == [call for call in expected for _ in two]


def test_no_logger_is_a_choice(tmp_path: Path) -> None:
    logger = loggers.open_logger(RunFolder(tmp_path), ())
    logger.scalars(1, {"train/loss": 0.5})
    logger.close()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_logger_is_refused_with_the_names_of_the_known() -> None:
    assert "tensorboard" in loggers.names()
    with pytest.raises(ConfigError, match=r"loggers.*unknown logger 'a\\x1b'\. Allowed: .*tensorb"):
        loggers.check(["tensorboard", "a\x1b"])


def test_a_library_that_is_missing_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, f"{loggers.__name__}.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'dmlray\[tensorboard\]'"):
        loggers.open_logger(RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_metrics_are_grouped_by_the_classes_that_they_are_of() -> None:
    epoch = {
        "loss": 1.0, "loss_proxy": 1.0, "branch_0_share": 0.5, "seconds": 9.0, "map_at_r": 0.4,
        "recall_at_1": 0.5, "r_precision": 0.3, "map_at_r_std": 0.1, "fold0/map_at_r": 0.3,
        "embedding_size": 64,
    }  # fmt: skip
    assert list(loggers.grouped(epoch)) == [
        "train/loss", "train/loss_proxy", "train/branch_0_share", "train/seconds",
        "validation/map_at_r", "validation/recall_at_1", "validation/r_precision",
        "validation/map_at_r_std", "validation/fold0/map_at_r",
    ]  # fmt: skip
    assert "test/map_at_r" in loggers.grouped(epoch, "test")
