"""The file of an offline run, as `wandb sync` would send it."""

import json
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.loggers import open_logger

_BLOCK, _HEADER = 32768, 7  # bytes: the file is a log of LevelDB


@pytest.fixture(scope="module", autouse=True)
def package() -> Any:
    """Imported here, in one process of the tests: it takes seconds."""
    return pytest.importorskip("wandb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "a run"
    folder.mkdir()
    return RunFolder(folder, root=folder)


def records(folder: RunFolder) -> list[Any]:
    """All records of the one run below the folder, once its own process has written the last."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = list(written(folder))
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.05)
    raise AssertionError("the run is not finished")


def written(folder: RunFolder) -> Iterator[Any]:
    """The whole records that are in the file."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    content, at, parts = file.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:  # padding at the end of a block
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + _HEADER])
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield Record.FromString(parts)
            parts = b""


def history(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        for record in records(folder)
        if (items := record.history.item)
    ]


def log(folder: RunFolder, steps: int) -> None:
    """A session that logs all steps from the first, as a resumed one does."""
    with closing(open_logger(folder, ["wandb"])) as logger:
        for step in range(1, steps + 1):
            logger.scalars(step, {"train/loss": 1 / step, "validation/map_at_r": step / 10})
            if step == 1:
                logger.hparams({"optimizer.lr": 0.1, "data.root": "/a\udcff", "x": [1, 2]}, {})


def test_a_resumed_run_keeps_its_identifier_and_has_each_step_once(run: RunFolder) -> None:
    names = set()
    for steps in (2, 3):
        log(run, steps)
        (begun,) = [record.run for record in records(run) if record.run.run_id]
        names.add((begun.run_id, begun.display_name, begun.project))
    assert names == {((run.path / "wandb_run.txt").read_text(), "a run", "a run")}
    found = history(run)
    assert [line["_step"] for line in found] == [1, 2, 3]
    assert [line["validation/map_at_r"] for line in found] == pytest.approx([0.1, 0.2, 0.3])


def test_settings_and_pictures_are_there(run: RunFolder) -> None:
    with closing(open_logger(run.member(0), ["wandb"])) as logger:
        logger.scalars(1, {"test/map_at_r": 0.5})
        logger.hparams({"optimizer.lr": 0.1, "data.root": "/a\udcff"}, {})
        logger.image("test/curve", np.zeros((4, 6, 3), np.uint8))
    config = {
        update.key: json.loads(update.value_json)
        for record in records(run.member(0))
        for update in [*record.run.config.update, *record.config.update]
    }
    assert config["optimizer.lr"] == 0.1
    assert config["data.root"] == r"/a\udcff"
    (line,) = history(run.member(0))
    assert line["test/map_at_r"] == 0.5
    assert (line["test/curve/height"], line["test/curve/width"]) == (4, 6)
