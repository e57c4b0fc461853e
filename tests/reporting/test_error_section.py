"""What went wrong, as a report shows it: each query with its neighbours, hits and misses marked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmlray.data.roles import roles_of
from dmlray.reporting.error_section import error_section
from dmlray.reporting.thumbnails import Thumbnails
from dmlray.results.error_analysis import ErrorAnalysis, analyse
from dmlray.results.scored_images import ScoredImages

CLASSES = ("a", "a", "b", "b", "c")
FILES = tuple(f"{number}.png" for number in range(5))
ANGLES = np.deg2rad([0, 20, 25, 150, 180])  # 1 and 2 are the most alike, and of different classes


def analysed(roles: tuple[str, ...] | None = None) -> ErrorAnalysis:
    rows = torch.from_numpy(np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1))
    known = None if roles is None else roles_of(roles, None)
    return analyse(ScoredImages(rows, CLASSES, FILES, known))


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    for file in FILES[:-1]:
        Image.new("RGB", (8, 8)).save(tmp_path / file)
    return Thumbnails(tmp_path, 10_000)


def test_a_grid_has_the_query_and_its_neighbours_nearest_first(thumbnails: Thumbnails) -> None:
    found = analysed()
    section = error_section(found, thumbnails, 12)
    grids = {grid[0]["file"]: grid for group in section["grids"].values() for grid in group}
    for name, (query, *hits) in grids.items():
        number = FILES.index(str(name))
        cosines = np.cos(ANGLES - ANGLES[number])
        others = sorted((n for n in range(5) if n != number), key=lambda n: -cosines[n])
        assert [hit["file"] for hit in hits] == [FILES[n] for n in others]
        assert [hit["cosine"] for hit in hits] == [f"{cosines[n]:.3f}" for n in others]
        same = [CLASSES[n] == CLASSES[number] for n in others]
        assert [hit["kind"] for hit in hits] == ["hit" if s else "miss" for s in same]
        assert [hit["mark"] for hit in hits] == ["\u2713" if s else "\u2717" for s in same]
        assert (query["kind"], query["mark"], query["cosine"]) == ("query", "", None)
    assert len(grids) == 4  # the only image of its class is no query


def test_missing_pictures_are_counted_and_leave_their_names(thumbnails: Thumbnails) -> None:
    section = error_section(analysed(), thumbnails, 4)
    items = [item for group in section["grids"].values() for grid in group for item in grid]
    assert thumbnails.missing == 1
    assert {item["file"] for item in items if item["picture"] is None} == {FILES[-1]}
    assert {item["name"] for item in items if item["picture"] is None} == {"c"}


def test_classes_come_worst_first_and_those_without_a_score_last(thumbnails: Thumbnails) -> None:
    section = error_section(analysed(), thumbnails, 0)
    assert section["class_head"] == ["class", "images", "Recall@1", "MAP@R"]
    assert section["classes"] == [
        ["b", "2", "0.0", "0.0"], ["a", "2", "50.0", "50.0"], ["c", "1", "-", "-"],
    ]  # fmt: skip
    assert section["classes_text"].startswith("All 3 classes, worst first.")
    assert all(not group for group in section["grids"].values())


def test_confused_classes_show_their_most_alike_pair(thumbnails: Thumbnails) -> None:
    first, *_ = error_section(analysed(), thumbnails, 0)["confusions"]
    assert first["text"] == "a / b: 2"  # images 1 and 2 have their nearest in the other class
    assert {item["file"] for item in first["pictures"]} == {FILES[1], FILES[2]}


def test_suspects_show_both_images_and_how_alike_they_are(thumbnails: Thumbnails) -> None:
    section = error_section(analysed(), thumbnails, 0)
    pictures = [[item["file"] for item in pair["pictures"]] for pair in section["suspects"]]
    assert [FILES[1], FILES[2]] in pictures
    assert section["suspects_text"].startswith(f"{len(pictures)} pairs of neighbours")
    (pair,) = (p["pictures"] for p in section["suspects"] if p["pictures"][0]["file"] == FILES[1])
    assert pair[1]["cosine"] == f"{np.cos(np.deg2rad(5)):.3f}"


def test_with_roles_queries_are_searched_for_in_the_gallery(thumbnails: Thumbnails) -> None:
    roles = ("query", "gallery", "gallery", "gallery", "gallery")
    section = error_section(analysed(roles), thumbnails, 6)
    grids = [grid for group in section["grids"].values() for grid in group]
    assert {grid[0]["file"] for grid in grids} == {FILES[0]}
    assert [item["file"] for item in grids[0][1:]] == list(FILES[1:])
