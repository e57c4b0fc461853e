"""Images that parquet files list or hold."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dmlray.data.cache import inventory
from dmlray.data.cache.image_cache import open_cache
from dmlray.data.datasets import csv_file
from dmlray.data.datasets import parquet as parquet_file
from dmlray.data.datasets.survey import kind_of
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.errors import ConfigError, DataError
from tests.data.datasets.arrow_tables import images, parquet, png, table
from tests.data.images import picture

NAMES = ("a1.png", "a2.png", "b1.png", "b2.png")
LABELS = ["a", "a", "b", "b"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A parquet file yet to be written, beside four images."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        picture(8, 8, seed).save(folder / name)
    return folder / "images.parquet"


def refused(source: Path, columns: dict[str, Any], split: Split = "classes") -> str:
    parquet(source, table(columns))
    with pytest.raises(DataError) as caught:
        parquet_file.load(source, split)
    message = str(caught.value)
    assert message.startswith(f"{source}: ")
    assert "\n" not in message
    return message.removeprefix(f"{source}: ")


def test_paths_are_read_as_those_of_a_csv_file(source: Path) -> None:
    columns = {
        "path": NAMES,
        "label": LABELS,
        "split": ["train", "train", "test", "test"],
        "role": [None, "", "query", "Gallery"],
        "group": [None, 1, 2, 3],
        "category": ["x", "x", "y", "y"],
        "x1": [0.0, None, 1.0, None], "y1": [0, None, 1, None],
        "x2": [5.0, None, 8.0, None], "y2": [6, None, 8, None],
        "price": [1.5, 2.5, 3.5, 4.5],
    }  # fmt: skip
    lines = [",".join(columns), *(
        ",".join("" if value is None else f"{value}" for value in row)
        for row in zip(*columns.values(), strict=True)
    )]  # fmt: skip
    written = source.with_suffix(".csv")
    written.write_text("\n".join(lines))
    wanted = csv_file.load(written, "given")
    found = parquet_file.load(parquet(source, table(columns)), "given")
    assert (found.files, found.classes, found.train_classes) == (
        wanted.files,
        wanted.classes,
        wanted.train_classes,
    )
    assert found.fingerprint == wanted.fingerprint
    np.testing.assert_array_equal(found.roles.groups, wanted.roles.groups)
    np.testing.assert_array_equal(found.categories, wanted.categories)


def test_the_case_of_a_column_counts_only_among_several(source: Path) -> None:
    lower = parquet_file.load(parquet(source, table({"path": NAMES, "label": LABELS})))
    upper = parquet_file.load(parquet(source, table({"Path": NAMES, "LABEL": LABELS})))
    assert (upper.files, upper.classes) == (lower.files, lower.classes)
    both = {"Label": ["x"] * 4, "path": NAMES, "label": LABELS}
    assert parquet_file.load(parquet(source, table(both))).classes == lower.classes
    assert "no column named 'label'" in refused(
        source, {"path": NAMES, "Label": LABELS, "LABEL": LABELS}
    )
    stored = {"Image": [png(seed) for seed in range(4)], "Label": LABELS}
    assert len(parquet_file.load(parquet(source, table(stored))).files) == 4


@pytest.mark.parametrize("stored", ["struct", "binary", "large_binary"])
def test_images_inside_of_the_file_are_written_once(
    tmp_path: Path, cache: Path, stored: str
) -> None:
    kinds = {"binary": pa.binary(), "large_binary": pa.large_binary()}
    column = images(4) if stored == "struct" else pa.array(map(png, range(4)), kinds[stored])
    source = parquet(tmp_path / "p.parquet", table({"picture": column, "label": LABELS}))
    dataset = parquet_file.load(source)
    assert dataset.files == ("0000001", "0000002", "0000003", "0000004")
    assert dataset.root.is_relative_to(cache)
    pixels = open_cache(dataset, None)
    for seed in range(4):
        np.testing.assert_array_equal(pixels[seed], picture(8, 8, seed))
    (dataset.root / "0000001").chmod(0o400)
    before = (dataset.root / "0000001").stat().st_ino
    again = parquet_file.load(source)
    assert (again.root / "0000001").stat().st_ino == before
    assert verify("parquet", source).is_sound
    copies, decoded = sorted(inventory.listing(), key=lambda entry: entry.root == dataset.root)
    assert (copies.dataset, copies.root, copies.images) == ("parquet", source, 4)
    assert decoded.root == dataset.root
    removed = inventory.clear(["parquet"]).removed
    assert {entry.folder for entry in removed} == {copies.folder, decoded.folder}
    made_again = parquet_file.load(source)
    assert (made_again.root, made_again.fingerprint) == (dataset.root, dataset.fingerprint)
    assert made_again.modified == dataset.modified


def test_another_file_is_copied_anew(tmp_path: Path) -> None:
    source = tmp_path / "p.parquet"
    first = parquet_file.load(parquet(source, table({"image": images(4), "label": LABELS})))
    parquet(source, table({"image": images(4, first=9), "label": LABELS}))
    os.utime(source, (1e9, 1e9))
    second = parquet_file.load(source)
    assert second.root != first.root
    assert second.fingerprint != first.fingerprint


def test_parts_in_a_folder_are_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in (0, 1):
        columns = {"image": images(2, first=2 * part), "label": LABELS[2 * part :][:2]}
        parquet(folder / f"train-0000{part}.parquet", table(columns))
    dataset = parquet_file.load(folder)
    assert (len(dataset), dataset.classes) == (4, ("a", "b"))
    assert kind_of(folder) == kind_of(folder / "train-00000.parquet") == "parquet"
    parquet(folder / "x.parquet", table({"image": images(1), "name": ["a"]}))
    with pytest.raises(DataError, match=r"x\.parquet: its columns are not those of train-00000"):
        parquet_file.load(folder)


def test_the_class_names_of_numbers_are_the_labels(source: Path) -> None:
    columns = {"path": NAMES, "fine": [1, 1, 0, 0], "coarse": [0, 0, 0, 0]}
    classes = {"fine": ["pear", "fig"]}
    dataset = parquet_file.load(parquet(source, table(columns, classes)))
    assert dataset.classes == ("fig", "pear")
    assert dataset.files == ("a1.png", "a2.png", "b1.png", "b2.png")
    parquet(source, table(columns, classes | {"coarse": ["fruit"]}))
    with pytest.raises(DataError, match=r"2 of type ClassLabel among fine, coarse. Rename"):
        parquet_file.load(source)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": LABELS}, "0 columns of images and none named 'path' among label"),
        ({"a": images(4), "b": images(4), "label": LABELS}, "2 columns of images and none named"),
        ({"path": NAMES, "name": LABELS}, "no column named 'label' and 0 of type ClassLabel"),
        ({"path": NAMES, "label": [[1], [1], [2], [2]]}, "column 'label' holds list"),
        ({"path": NAMES, "label": ["a", None, "b", "b"]}, "row 2: label is empty"),
        ({"path": [*NAMES[:3], "x.png"], "label": LABELS}, "row 4: there is no file "),
        ({"path": [*NAMES[:3], "a1.png"], "label": LABELS}, "row 4: a1.png is on row 1 already"),
        ({"image": pa.array([png(0), png(1), None, png(3)]), "label": LABELS}, "row 3: path is"),
        ({"path": NAMES, "label": LABELS, "group": LABELS}, "columns: a column 'group' without"),
        ({"path": NAMES, "label": LABELS, "role": ["both"] * 3 + ["x"]}, "row 4: role 'x' is not"),
        ({"path": NAMES, "label": LABELS, "x1": [1] * 4}, "columns: columns of a box without y1"),
        (
            {"path": NAMES, "label": LABELS} | dict(zip(("x1", "y1"), ([0] * 4,) * 2, strict=True))
            | {"x2": [8, 8, 9, 8], "y2": [8] * 4},
            "row 3: box 0, 0, 9, 8 reaches outside of the image of 8 x 8",
        ),
        (
            {"path": NAMES, "label": LABELS, "role": ["both"] * 2 + ["query"] * 2},
            "row 3 (b1.png): the gallery is empty",
        ),
        (
            {"path": NAMES, "label": LABELS, "role": ["gallery"] * 2 + ["both"] * 2},
            "row 1 (a1.png): training class 'a' is only in the gallery",
        ),
        (
            {"path": NAMES, "label": LABELS, "role": ["both"] * 4, "group": [1] * 4},
            "row 3 (b1.png): this query and all 2 have no match",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_row(
    source: Path, columns: dict[str, Any], message: str
) -> None:
    assert refused(source, columns).startswith(message)


def test_splits_are_required_if_given(source: Path) -> None:
    columns = {"path": NAMES, "label": LABELS}
    message = refused(source, columns, "given")
    assert message.startswith("columns: 0 columns named 'split'. Expected a header of path, label")
    message = refused(source, columns | {"split": ["train", "train", "dev", "test"]}, "given")
    assert message.startswith("row 3: split 'dev' is not allowed")


@pytest.mark.parametrize("kind", ["nothing", "pipe", "text", "half", "empty", "no parts"])
def test_what_is_no_parquet_file_is_refused(source: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(source)
    elif kind == "half":
        content = parquet(source, table({"path": NAMES, "label": LABELS})).read_bytes()
        source.write_bytes(content[: len(content) // 2])
    elif kind == "no parts":
        source.mkdir()
    elif kind != "nothing":
        source.write_text("path,label\n" * (kind == "text"))
    with pytest.raises(DataError) as caught:
        parquet_file.load(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)


def test_root_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: .*needs a parquet file"):
        parquet_file.load(None)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.array([2**62] * 4).view("M8[us]"), "out of range"),
        (np.array([2**62] * 4).view("m8[s]"), "too large"),
        (pa.array([b"\xff"] * 4).view(pa.string()), "can't decode"),
    ],
)
def test_a_value_that_is_none_of_python_is_refused(source: Path, values: Any, why: str) -> None:
    for column in ("label", "path"):
        columns = {"path": NAMES, "label": LABELS, column: pa.array(values)}
        found = refused(source, columns)
        assert found.startswith("a value cannot be read (")
        assert why in found


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (list("aabb"), ("a", "b")),
        ([0.0, 0.0, 1.0, 1.0], ("0", "1")),
        ([True, True, False, False], ("False", "True")),
    ],
)
def test_class_names_are_those_of_whole_numbers_only(
    source: Path, labels: list[Any], classes: tuple[str, ...]
) -> None:
    parquet(source, table({"path": NAMES, "label": labels}, {"label": ["x", "y"]}))
    assert parquet_file.load(source).classes == classes


@pytest.mark.parametrize("feature", [b"[" * 100_000, b'{"info": {"features": {"label": 1}}}'])
def test_metadata_of_another_kind_are_no_class_names(source: Path, feature: bytes) -> None:
    plain = pa.table({"path": NAMES, "label": [0, 0, 1, 1]})
    parquet(source, plain.replace_schema_metadata({"huggingface": feature}))
    assert parquet_file.load(source).classes == ("0", "1")


def test_class_names_of_a_column_that_is_not_there_are_no_label(source: Path) -> None:
    parquet(source, table({"path": NAMES}, {"ghost": ["x"]}))
    with pytest.raises(DataError, match="no column named 'label' and 0 of type ClassLabel"):
        parquet_file.load(source)


def test_a_path_of_an_image_is_text(source: Path) -> None:
    stored = [{"bytes": b"", "path": 3}] * 4
    found = refused(source, {"image": stored, "label": LABELS})
    assert found.startswith("0 columns of images")
