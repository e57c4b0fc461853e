"""Vectors of any images: resumable, nothing twice, failures listed, readable by others."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

import dmlray
from dmlray.errors import DmlrayError
from dmlray.inference import embed_files, images, shards
from dmlray.inference.image_list import list_images
from dmlray.inference.model import Model


@pytest.fixture(scope="module")
def model(runs: Path) -> Model:
    return dmlray.load_model(runs / "a")


def test_each_box_of_a_table_is_an_image(runs: Path, tmp_path: Path, model: Model) -> None:
    photo = runs / "images" / "class03" / "4.png"
    boxed = [f"{photo},2,4,30,28", f"{photo},,,,"]
    (tmp_path / "list.csv").write_text("\n".join(["path,x1,y1,x2,y2", *boxed]))
    about = dmlray.embed(model, tmp_path / "list.csv", tmp_path / "v")
    assert (about.count, about.failed) == (2, 0)
    table = read(tmp_path / "v")
    assert table.path.tolist() == [f"{photo}#xywh=2,4,28,24", str(photo)]
    assert table.width.tolist() == [28, 32]
    assert set(table.sha256) == {hashlib.sha256(photo.read_bytes()).hexdigest()}  # of the file
    with Image.open(photo) as image:
        cut = model.embed([image.crop((2, 4, 30, 28)), image])
    np.testing.assert_allclose(np.stack(table.vector), cut, atol=1e-6)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 20 images, made in batches of 8."""
    monkeypatch.setattr(embed_files, "_LEAST", 20)
    monkeypatch.setattr(shards, "BATCH", 8)


def read(vectors: Path) -> pd.DataFrame:
    return pd.read_parquet(vectors / "shards")


def test_a_folder_becomes_vectors_with_labels_sizes_and_hashes(
    runs: Path, tmp_path: Path, model: Model, small_shards: None
) -> None:
    done: list[tuple[int, int]] = []
    about = dmlray.embed(
        runs / "a", [runs / "images"], tmp_path / "v", progress=lambda *at: done.append(at)
    )
    table = read(tmp_path / "v")
    files = sorted((runs / "images").glob("*/*.png"))
    assert table.path.tolist() == [str(file) for file in files]
    assert about.count == 96
    assert table.label.tolist() == [file.parent.name for file in files]
    assert set(table.width) == set(table.height) == {32}
    assert table.sha256[5] == hashlib.sha256(files[5].read_bytes()).hexdigest()
    np.testing.assert_allclose(np.stack(table.vector), model.embed(files), atol=1e-6)
    assert done[0] == (0, 96)
    assert done[-1] == (96, 96)
    assert done == sorted(done)
    described = json.loads((tmp_path / "v" / "vectors.json").read_text())
    assert described["model"] == model.fingerprint
    assert described["complete"]
    assert (described["count"], described["dimension"], described["failed"]) == (96, 8, 0)


def test_what_was_embedded_before_a_kill_is_not_embedded_again(
    runs: Path, tmp_path: Path, model: Model, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    seen: list[str] = []
    read_image = images.read_image

    def counted(path: str, most: int) -> Image.Image:
        if len(seen) == 50:
            raise Killed
        seen.append(path)
        return read_image(path, most)

    monkeypatch.setattr(shards, "read_image", counted)
    with pytest.raises(Killed):
        dmlray.embed(model, [runs / "images"], tmp_path / "v")
    made = sorted((tmp_path / "v" / "shards").iterdir())
    assert [shard.name for shard in made] == [
        "part-0000000000.parquet",
        "part-0000000020.parquet",
    ]
    with pytest.raises(DmlrayError, match="is not finished"):
        dmlray.query(model, tmp_path / "v", seen[0])
    stamps = [shard.stat().st_mtime_ns for shard in made]
    again: list[str] = []

    def noted(path: str, most: int) -> Image.Image:
        again.append(path)
        return read_image(path, most)

    monkeypatch.setattr(shards, "read_image", noted)
    about = dmlray.embed(model, [runs / "images"], tmp_path / "v")
    assert about.count == 96
    assert len(again) == 56
    assert not set(again) & set(seen[:40])
    assert [shard.stat().st_mtime_ns for shard in made] == stamps
    dmlray.embed(model, [runs / "images"], tmp_path / "v")
    assert len(again) == 56  # a finished one is only read


def test_unreadable_images_are_listed_and_do_not_end_it(
    runs: Path, tmp_path: Path, model: Model, small_shards: None
) -> None:
    shutil.copytree(runs / "images", tmp_path / "images")
    (tmp_path / "images" / "class00" / "0.png").write_bytes(b"torn")
    (tmp_path / "images" / "class05" / "x,\ny.jpg").write_bytes(b"")
    about = dmlray.embed(model, [tmp_path / "images"], tmp_path / "v")
    assert (about.count, about.failed) == (95, 2)
    with open(tmp_path / "v" / "failed.csv", newline="") as file:
        failed = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in failed] == ["0.png", "x,\ny.jpg"]
    assert failed[1]["reason"] == "the file is empty"
    with pytest.raises(DmlrayError, match=r"0\.png: not a readable image") as caught:
        dmlray.embed(model, [tmp_path / "images"], tmp_path / "strict", strict=True)
    assert caught.value.exit_status == 2


def test_a_table_keeps_its_columns_and_float16_halves_vectors(
    runs: Path, tmp_path: Path, model: Model
) -> None:
    shutil.copytree(runs / "images" / "class00", tmp_path / "photos")
    (tmp_path / "list.csv").write_text("sku,path\n007,photos/0.png\n008,photos/1.png\n")
    dmlray.embed(model, [tmp_path / "list.csv"], tmp_path / "v", number="float16")
    table = read(tmp_path / "v")
    assert table.sku.tolist() == ["007", "008"]
    assert table.path.tolist() == [str(tmp_path / "photos" / name) for name in ("0.png", "1.png")]
    assert table.vector[0].dtype == np.float16
    typed = pa.table({"path": ["photos/0.png"], "price": [1.5]})
    pyarrow.parquet.write_table(typed, tmp_path / "list.parquet")
    dmlray.embed(model, [tmp_path / "list.parquet"], tmp_path / "w")
    assert read(tmp_path / "w").price.tolist() == [1.5]
    schema = pyarrow.parquet.read_schema(next((tmp_path / "w" / "shards").iterdir()))
    assert schema.field("vector").type == pa.list_(pa.float32(), 8)


def test_other_models_images_and_folders_are_refused(
    runs: Path, tmp_path: Path, model: Model
) -> None:
    few = [runs / "images" / "class00"]
    dmlray.embed(model, few, tmp_path / "v")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    calls: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: dmlray.embed(runs / "b", few, tmp_path / "v"), "holds vectors of another model"),
        (lambda: dmlray.embed(model, [runs / "images"], tmp_path / "v"), "vectors of other images"),
        (lambda: dmlray.embed(model, few, tmp_path / "v", number="float16"), "of other numbers"),
        (lambda: dmlray.embed(model, few, tmp_path / "full"), "exists and holds no vectors"),
        (lambda: dmlray.embed(model, few, tmp_path / "file"), "exists and holds no vectors"),
        (lambda: dmlray.embed(model, few, tmp_path / "file" / "v"), "cannot be written"),
        (lambda: dmlray.embed(model, [tmp_path / "empty"], tmp_path / "w"), "empty: no images"),
        (lambda: dmlray.embed(model, few, tmp_path / "w", device="tpu9"), "'tpu9' is no device"),
    )
    for call, said in calls:
        with pytest.raises(DmlrayError, match=said) as caught:
            call()
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "file,label\na,b\n", "0 columns named 'path' among file, label"),
        ("x.csv", "path,path\na,b\n", "2 columns named 'path'"),
        ("x.csv", "path\n\n", "no images|is no path"),
        ("x.csv", "", "is no table or is damaged"),
        ("x.csv", "path,label\na\n", "is no table or is damaged"),
        ("x.csv", "path\na\xff\n", "is no table or is damaged"),
        ("x.csv", "\xff\xfep\0a\0t\0h\0\n\0a\0\n\0", "is no table or is damaged"),
        ("x.csv", "path,x1,x1,y1,x2,y2\na,0,0,0,1,1\n", "2 columns named 'x1'"),
        ("x.csv", "path,note,note\na,b,c\n", "2 columns named 'note'"),
        ("x.parquet", "PAR1", "is no table or is damaged"),
        ("x.txt/y", None, "is no file"),
    ],
)
def test_lists_that_are_none_are_one_sentence(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DmlrayError, match=said) as caught:
        list_images([tmp_path / name])
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([b"\xff"]).view(pa.string()), "Invalid UTF8"),
        (pa.array([2**62], pa.timestamp("us")), "out of range"),
        (pa.array([[2**62]], pa.list_(pa.timestamp("us"))), "out of range"),
    ],
)
def test_a_value_that_is_none_of_python_is_refused(
    tmp_path: Path, column: pa.Array, why: str
) -> None:
    pyarrow.parquet.write_table(pa.table({"path": ["a"], "label": column}), tmp_path / "x.parquet")
    with pytest.raises(DmlrayError, match=rf"is no table or is damaged \(.*{why}"):
        list_images([tmp_path / "x.parquet"])


def test_a_file_without_a_name_in_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"bad\xff.png")
    file.write_bytes(b"?")
    for sources in ([file], [tmp_path]):
        with pytest.raises(DmlrayError, match=r"'bad.*' is no name in UTF-8"):
            list_images(sources)


def test_folders_are_walked_down_and_files_are_taken_as_they_are(
    runs: Path, tmp_path: Path
) -> None:
    for name in (
        "b.png",
        "a/x.JPG",
        "a/y/z.webp",
        ".hidden.png",
        ".git/q.png",
        "note.txt",
        "@eaDir/t.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    shutil.copy(runs / "images" / "class00" / "0.png", tmp_path / "a" / "without_suffix")
    table = list_images([tmp_path]).to_pydict()
    names = [str(Path(path).relative_to(tmp_path)) for path in table["path"]]
    assert names == ["a/without_suffix", "a/x.JPG", "a/y/z.webp", "b.png"]
    assert table["label"] == ["a", "a", "a", ""]
    named = list_images([tmp_path / "note.txt", tmp_path / "b.png"])  # whatever they are
    assert named.column_names == ["path"]
    assert len(named) == 2


def test_a_column_that_is_made_may_not_be_given(tmp_path: Path, model: Model) -> None:
    (tmp_path / "x.csv").write_text("path,vector\na.png,1\n")
    with pytest.raises(DmlrayError, match="column vector is made by dmlray"):
        dmlray.embed(model, [tmp_path / "x.csv"], tmp_path / "v")
