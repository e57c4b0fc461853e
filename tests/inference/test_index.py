"""Indices are as good as they say, and are refused where they are of other vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dmlray
from dmlray.errors import DmlrayError
from dmlray.inference import index
from dmlray.inference.index import build_index, search_index
from dmlray.inference.search import nearest_vectors
from tests.inference.test_search import unit_rows, write_vectors


@pytest.mark.parametrize("kind", ["flat", "hnsw", pytest.param("ivfpq", marks=pytest.mark.slow)])
def test_the_reported_recall_is_that_of_the_search(
    tmp_path: Path, kind: index.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "LEAST_FOR_PQ", 2000)
    rows = unit_rows(2000, 8, 0)
    about = write_vectors(tmp_path, rows, 300)
    made = build_index(tmp_path, kind)
    assert (made.kind, made.count, made.sample) == (kind, 2000, 1000)
    own = np.unique(np.linspace(0, 1999, 1000).round().astype(int))
    queries = torch.from_numpy(rows[own])
    exact = nearest_vectors(tmp_path, about, queries, 11).indices.numpy()
    found = search_index(tmp_path, about, queries, 11).indices.numpy()
    recall = [
        len(set(right) & set(got) - {number}) / 10
        for number, right, got in zip(own, exact, found, strict=True)
    ]
    assert made.recall_at_10 == pytest.approx(np.mean(recall), abs=1e-9)
    least = {"flat": 0.9999, "hnsw": 0.9, "ivfpq": 0.1}
    assert made.recall_at_10 >= least[kind]


def test_a_single_vector_is_found(tmp_path: Path) -> None:
    about = write_vectors(tmp_path, unit_rows(1, 8, 0), 300)
    assert build_index(tmp_path, "flat").recall_at_10 == 1
    assert search_index(tmp_path, about, torch.ones(2, 8), 1).indices.tolist() == [[0], [0]]


def test_a_query_by_index_finds_the_known_photo(runs: Path, tmp_path: Path) -> None:
    known = runs / "images" / "class03" / "4.png"
    dmlray.embed(runs / "a", [runs / "images"], tmp_path / "v")
    with pytest.raises(DmlrayError, match="holds no index"):
        dmlray.query(runs / "a", tmp_path / "v", known, index=True)
    with pytest.raises(DmlrayError, match="ivfpq of 96 vectors is not allowed"):
        build_index(tmp_path / "v", "ivfpq")
    build_index(tmp_path / "v", "hnsw")
    ((hit,),) = dmlray.query(runs / "a", tmp_path / "v", known, 1, index=True)
    assert hit.path == str(known)
    described = json.loads((tmp_path / "v" / "index.json").read_text())
    (tmp_path / "v" / "index.json").write_text(json.dumps({**described, "count": 95}))
    with pytest.raises(DmlrayError, match="is of other vectors"):
        dmlray.query(runs / "a", tmp_path / "v", known, index=True)
    (tmp_path / "v" / "index.faiss").write_bytes(b"x")
    with pytest.raises(DmlrayError, match="SHA-256 differs"):
        dmlray.query(runs / "a", tmp_path / "v", known, index=True)
