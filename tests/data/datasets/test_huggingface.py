"""Folders that `save_to_disk` of Hugging Face's package `datasets` writes."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data.cache.image_cache import open_cache
from dmlray.data.datasets import huggingface
from dmlray.data.datasets.survey import kind_of
from dmlray.errors import ConfigError, DataError
from tests.data.datasets.arrow_tables import images, saved, saved_splits, table
from tests.data.images import picture

LABELS = [0, 0, 1, 1]
CLASSES = {"label": ["pear", "fig"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))


def test_a_dataset_in_parts_is_read(tmp_path: Path) -> None:
    parts = [
        table({"image": images(2, first), "label": LABELS[first:][:2]}, CLASSES) for first in (0, 2)
    ]
    dataset = huggingface.load(saved(tmp_path / "saved", *parts))
    assert dataset.classes == ("fig", "pear")
    assert dataset.files == ("0000003", "0000004", "0000001", "0000002")
    pixels = open_cache(dataset, None)
    for row, seed in enumerate((2, 3, 0, 1)):
        np.testing.assert_array_equal(pixels[row], picture(8, 8, seed))
    assert kind_of(tmp_path / "saved") == "huggingface"


def test_the_splits_of_a_dict_are_given(tmp_path: Path) -> None:
    roles = {"role": ["query", "gallery"], "group": ["1", "2"]}
    training = {"role": ["both", "both"], "group": ["", ""]}
    splits = {
        "train": table({"image": images(2), "label": [0, 0]} | training),
        "test": table({"image": images(2, 2), "label": [1, 1]} | roles),
    }
    root = saved_splits(tmp_path / "saved", splits)
    dataset = huggingface.load(root, "given")
    assert dataset.files == ("train-0000001", "train-0000002", "test-0000001", "test-0000002")
    assert dataset.train_classes == 1
    assert dataset.roles.queries.tolist() == [True, True, True, False]
    assert kind_of(root) == "huggingface"
    (remark,) = huggingface.load(root).remarks
    assert remark.startswith("the file's column split is not used")


def test_an_image_may_be_a_path(tmp_path: Path) -> None:
    column = images(4).to_pylist()
    picture(8, 8, 9).save(tmp_path / "far.png")
    column[1] = {"bytes": None, "path": str(tmp_path / "far.png")}
    root = saved(tmp_path / "saved", table({"image": column, "label": LABELS}))
    dataset = huggingface.load(root)
    assert str(tmp_path / "far.png") in dataset.files


def test_rows_are_named_with_their_split(tmp_path: Path) -> None:
    splits = {
        "train": table({"image": images(2), "label": ["a", "a"]}),
        "test": table({"image": images(2, 2), "label": ["b", None]}),
    }
    root = saved_splits(tmp_path / "saved", splits)
    with pytest.raises(DataError, match="test row 2: label is empty"):
        huggingface.load(root, "given")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list '_data_files'"),
        ('{"_data_files": [{"name": "a"}]}', "has no list '_data_files'"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "names a file in another folder"),
        ('{"_data_files": [{"filename": "a.arrow"}]}', "a.arrow: cannot be read: No such file"),
        ('{"_data_files": []}', "has no images"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, state: str, message: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(DataError) as caught:
        huggingface.load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither state\.json nor dataset_dict\.json is there"):
        huggingface.load(tmp_path)
    with pytest.raises(ConfigError, match=r"^data\.root: "):
        huggingface.load(None)


def test_folders_of_the_package_itself_are_read(tmp_path: Path) -> None:
    package = pytest.importorskip("datasets")
    features = package.Features(
        {"photo": package.Image(), "species": package.ClassLabel(names=["pear", "fig"])}
    )
    pictures = [picture(8, 8, seed) for seed in range(4)]
    made = package.Dataset.from_dict({"photo": pictures, "species": LABELS}, features=features)
    made.save_to_disk(tmp_path / "one", num_shards=2)
    dataset = huggingface.load(tmp_path / "one")
    assert dataset.classes == ("fig", "pear")
    pixels = open_cache(dataset, None)
    for row, seed in enumerate((2, 3, 0, 1)):
        np.testing.assert_array_equal(pixels[row], pictures[seed])
    dict_ = package.DatasetDict(train=made.select([0, 1]), test=made.select([3, 2]))
    dict_.save_to_disk(tmp_path / "two")
    given = huggingface.load(tmp_path / "two", "given")
    assert (given.classes, given.train_classes) == (("pear", "fig"), 1)
