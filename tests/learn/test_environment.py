"""environment.json keeps what a run began with, and records later changes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import load
from dmlray.errors import DataError
from dmlray.learn import environment
from dmlray.learn.environment import check_images, record_environment
from dmlray.learn.runtime import Runtime
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import draw_images

HERE = Runtime(torch.device("cpu"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load(draw_images(tmp_path / "images", images=2))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def content(run: RunFolder) -> dict[str, Any]:
    return json.loads(run.environment.read_text())


def test_a_second_session_like_the_first_changes_nothing(run: RunFolder, dataset: Dataset) -> None:
    record_environment(run, 3, dataset)
    assert content(run)["dataset_fingerprint"] == dataset.fingerprint
    assert "device" not in content(run)
    record_environment(run, 3, dataset, HERE)  # where it trains
    first = content(run)
    assert first["device"].startswith("cpu")
    assert first["seed"] == 3
    stamp = run.environment.stat().st_mtime_ns
    record_environment(run, 3, dataset)
    record_environment(run, 3, dataset, HERE)
    assert (content(run), run.environment.stat().st_mtime_ns) == (first, stamp)


def test_changes_are_added(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_environment(run, 3, dataset, HERE)
    first = content(run)
    for versions in ({"torch": "9"}, {"torch": "9"}, {"torch": "10"}):
        monkeypatch.setattr(environment, "versions", lambda versions=versions: versions)
        record_environment(run, 3, dataset, HERE)
    changes = [{"versions": {"torch": "9"}}, {"versions": {"torch": "10"}}]
    assert content(run) == {**first, "resumed": changes}


def test_other_images_are_refused_and_the_file_is_kept(run: RunFolder, dataset: Dataset) -> None:
    record_environment(run, 3, dataset)
    before = content(run)
    other = replace(dataset, files=tuple(reversed(dataset.files)))
    repeats = (partial(record_environment, run, 3, other), partial(check_images, run, other))
    for again in repeats:
        pattern = (
            rf"the images changed since the run began \(fingerprint {dataset.fingerprint}, now "
        )
        with pytest.raises(DataError, match=pattern + other.fingerprint):
            again()
    assert content(run) == before


def test_a_run_of_another_format_resumes_with_a_warning(
    run: RunFolder, dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    run.environment.write_text('{"dataset_fingerprint": "old", "seed": 3}')
    record_environment(run, 3, dataset)
    assert "its images cannot be compared with those now" in caplog.text
    assert content(run)["dataset_fingerprint"] == "old"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"resumed": 3}', '{"resumed": [3]}'])
def test_a_damaged_record_is_named(run: RunFolder, dataset: Dataset, text: str) -> None:
    run.environment.write_text(text)
    with pytest.raises(DataError, match=r"environment\.json: is damaged .* Delete it to continue"):
        record_environment(run, 3, dataset)
