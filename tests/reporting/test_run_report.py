import json
import xml.etree.ElementTree as xml
from pathlib import Path

from PIL import Image

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.curve import WIDTH
from dmlray.reporting.run_report import page, write_ensemble
from dmlray.scores import Scores, read_scores

CURVE = [
    {"recall_at_1": 0.5, "r_precision": 0.2, "map_at_r": 0.1},
    {"recall_at_1": 0.75, "r_precision": 0.3, "map_at_r": 0.25},
]


def scores(**changes: object) -> Scores:
    known = dict(
        metrics=CURVE[-1], dataset="demo", dataset_fingerprint="f", split_fingerprint="s",
        test_classes=3, test_images=9, method="dreml", backbone="b", embedding_size=4,
        selection="last", tuned_by=None, seed=0, curve=CURVE,
    )  # fmt: skip
    return Scores(**{**known, **changes})  # type: ignore[arg-type]


def test_the_page_is_whole_and_loads_nothing() -> None:
    text = page("run", scores())
    assert "src=" not in text and "http" not in text and "<script" not in text
    assert "<td>75.0</td>" in text and "Recall@1 75.0%" in text


def test_the_curve_is_legal_svg_and_rises_with_the_scores() -> None:
    text = page("run", scores())
    svg = xml.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    first, second = svg.find("polyline").get("points").split()  # type: ignore[union-attr]
    assert float(first.split(",")[1]) > float(second.split(",")[1])  # pixels count downwards


def test_strange_names_cannot_break_the_page() -> None:
    text = page("<b>run", scores(method="<script>", remarks=["a & b"]))
    assert "<b>" not in text and "<script" not in text and "a &amp; b" in text


def test_control_characters_reach_neither_page_nor_picture(tmp_path: Path) -> None:
    evil = "a\x1b[2J\u202e\n\udcffb"
    text = page(evil, scores(method=evil, dataset=evil, backbone=evil, remarks=[evil]))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count(r"a\x1b[2J\u202e\n\udcffb") >= 4
    folder = RunFolder(tmp_path / evil)
    folder.path.mkdir()
    write_ensemble(folder, scores(method=evil))
    assert (folder.path / "report.html").exists() and (folder.path / "curve.png").exists()


def test_a_merge_without_a_curve_has_its_one_row() -> None:
    text = page("run", scores(curve=[]))
    assert "<svg" not in text and "<td>all</td><td>75.0</td>" in text


def test_scores_page_and_tensorboard_lie_in_the_run_folder(tmp_path: Path) -> None:
    write_ensemble(RunFolder(tmp_path), scores())
    assert read_scores(tmp_path / "scores.json") == scores()
    assert (tmp_path / "report.html").stat().st_size > 500
    assert list(tmp_path.glob("events.out.tfevents.*"))
    told = json.loads((tmp_path / "curve.json").read_text())
    assert told["sizes"] == [{"members": n, **metrics} for n, metrics in enumerate(CURVE, 1)]
    assert told["protocol"]["selection"] == "last" and told["protocol"]["test_classes"] == 3
    with Image.open(tmp_path / "curve.png") as image:
        assert (image.format, image.width) == ("PNG", 2 * WIDTH)


def test_a_merge_of_one_row_has_no_curve_to_write(tmp_path: Path) -> None:
    write_ensemble(RunFolder(tmp_path), scores(curve=[]))
    assert not list(tmp_path.glob("curve.*")) and (tmp_path / "report.html").exists()
