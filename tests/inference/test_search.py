"""Exact search over shards: the same neighbours as one product of all vectors."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import dmlray
from dmlray.errors import DmlrayError
from dmlray.inference import vector_files
from dmlray.inference.search import nearest_vectors
from dmlray.inference.vector_files import About, Number
from dmlray.reporting.query_page import query_page


def write_vectors(folder: Path, rows: np.ndarray, shard: int, number: Number = "float32") -> About:
    about = About("0" * 16, rows.shape[1], number, "0" * 64, len(rows), shard, 1, True, len(rows))
    (folder / "shards").mkdir(parents=True)
    for start, end in about.parts():
        flat = pa.array(rows[start:end].astype(number).reshape(-1))
        table = pa.table({"path": [f"/{row}" for row in range(start, end)]})
        vectors = pa.FixedSizeListArray.from_arrays(flat, about.dimension)
        table = table.append_column("vector", vectors)
        vector_files.write_shard(vector_files.shard_path(folder, start), table, [])
    vector_files.write_about(folder, about)
    return about


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    normalised: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("number", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_neighbours_are_those_of_one_product(tmp_path: Path, number: Number, k: int) -> None:
    """Shards shorter than k and a last one of one vector; equal vectors: the lower row first."""
    rows, queries = unit_rows(51, 16, 0), unit_rows(9, 16, 1)
    rows[40] = rows[33] = rows[5]
    queries[0] = rows[5]
    about = write_vectors(tmp_path, rows, 10, number)
    found = nearest_vectors(tmp_path, about, torch.from_numpy(queries), k)
    kept = rows.astype(number).astype(np.float64)
    cosines = queries.astype(np.float64) @ kept.T
    expected = np.argsort(-cosines.round(12), axis=1, kind="stable")[:, :k]
    assert np.array_equal(found.indices.numpy(), expected)
    values = np.take_along_axis(cosines, expected, 1)
    np.testing.assert_allclose(found.similarities.numpy(), values, atol=1e-6)
    if k == 7:
        assert found.indices[0, :3].tolist() == [5, 33, 40]


def test_a_known_photo_is_found_at_rank_one(runs: Path, tmp_path: Path) -> None:
    dmlray.embed(runs / "three", [runs / "images"], tmp_path / "v")
    known = runs / "images" / "class03" / "4.png"
    ((first, second),) = dmlray.query(runs / "three", tmp_path / "v", known, k=2)
    assert (first.path, first.label, first.rank) == (str(known), "class03", 1)
    assert first.similarity == pytest.approx(1, abs=1e-5)
    assert second.similarity < 1
    assert first.columns["width"] == 32


def test_what_cannot_be_searched_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    vectors, image = tmp_path / "v", runs / "images" / "class03" / "4.png"
    dmlray.embed(runs / "a", [runs / "images" / "class00"], vectors)
    (tmp_path / "text.png").write_text("no")
    for model, folder, query, k, said in (
        ("b", vectors, image, 1, "holds vectors of another model"),
        ("a", vectors, image, 9, "k: 9 is not allowed. Allowed: 1 to 8"),
        ("a", vectors, image, 0, "k: 0 is not allowed"),
        ("a", tmp_path, image, 1, r"holds no vectors\.json"),
        ("a", vectors, tmp_path / "text.png", 1, "not a readable image"),
    ):
        with pytest.raises(DmlrayError, match=said) as caught:
            dmlray.query(runs / model, folder, query, k)
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_a_damaged_shard_is_one_sentence(runs: Path, tmp_path: Path, content: bytes | None) -> None:
    image = runs / "images" / "class03" / "4.png"
    dmlray.embed(runs / "a", [runs / "images" / "class00"], tmp_path)
    shard = next((tmp_path / "shards").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2] + whole[-200:] if content is None else content)
    with pytest.raises(DmlrayError, match=r"parquet: is damaged .*embed again"):
        dmlray.query(runs / "a", tmp_path, image, 1)
    shard.unlink()
    with pytest.raises(DmlrayError, match=r"parquet: is damaged .*embed again"):
        dmlray.query(runs / "a", tmp_path, image, 1)
    about = json.loads((tmp_path / "vectors.json").read_text())
    (tmp_path / "vectors.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(DmlrayError, match=r"vectors\.json: is damaged \(format"):
        dmlray.query(runs / "a", tmp_path, image, 1)


def test_the_page_holds_its_pictures_and_loads_nothing(runs: Path, tmp_path: Path) -> None:
    dmlray.embed(runs / "a", [runs / "images"], tmp_path / "v")
    image = runs / "images" / "class03" / "4.png"
    found = dmlray.query(runs / "a", tmp_path / "v", image, 3)
    page = query_page([image], found, "protocol <b>")
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert "protocol &lt;b&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("class03") >= 2
    assert "1.000" in page


def test_the_commands_go_from_a_run_to_a_search(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dmlray.cli import main

    monkeypatch.chdir(tmp_path)
    image = str(runs / "images" / "class03" / "4.png")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main.main(list(words), prog_name="dmlray")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    assert run("export", str(runs / "a"), "--out", "model", "--half")[0] == 0
    status, out, err = run("embed", "model", str(runs / "images"), "--out", "vectors")
    assert (status, out) == (0, "vectors:      vectors, 96 of 8 dimensions\n"), err
    assert "96/96" in err
    assert "images/s" in err
    monkeypatch.setenv("COLUMNS", "300")
    words = ("query", "model", "vectors", image, "-k", "2", "--html", "page.html", "--csv", "f.csv")
    status, out, _ = run(*words)
    assert status == 0
    assert f"    1  1.0000  {image}  class03\n" in out
    assert "<h2>4.png</h2>" in (tmp_path / "page.html").read_text()
    with open("f.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert rows[0]["path"] == image
    for wrong, said in (
        (("query", "model", "vectors", image, "-k", "97"), "k: 97 is not allowed"),
        (("query", "model", "vectors", image, "--html", "no/page.html"), "cannot be written"),
        (("query", "model", "vectors", image, "--html", "x", "--csv", "x"), "Allowed: two files"),
        (("query", str(runs / "b"), "vectors", image), "vectors of another model"),
        (("embed", "model", "nowhere", "--out", "w"), "nowhere: is no file"),
        (("embed", "vectors", str(runs / "images"), "--out", "w"), "neither a run nor a model"),
        (("export", str(runs / "a"), "--out", "model"), "model: exists"),
    ):
        status, out, err = run(*wrong)
        assert status == 2
        assert said in err
        assert err.count("\n") == 1


def test_a_query_imports_nothing_that_is_slow_and_not_needed(runs: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    image = next((runs / "images").rglob("*.png"))
    dmlray.embed(runs / "a", [runs / "images"], vectors)
    program = (
        "import sys\n"
        "from dmlray.cli.commands import main\n"
        "try:\n"
        f"    main(['query', {str(runs / 'a')!r}, {str(vectors)!r}, {str(image)!r}, '-k', '2'])\n"
        "finally:\n"
        "    slow = ('ray', 'optuna', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'faiss')\n"
        "    print('imported', [name for name in slow if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("imported []\n")
