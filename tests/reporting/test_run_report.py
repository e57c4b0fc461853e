import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

from PIL import Image

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.run_report import page, write_ensemble
from dmlray.scores import Scores, read_scores

CURVE = [
    {"recall_at_1": 0.5, "r_precision": 0.2, "map_at_r": 0.1},
    {"recall_at_1": 0.75, "r_precision": 0.3, "map_at_r": 0.25},
]


def scores(**changes: object) -> Scores:
    known = {
        "metrics": CURVE[-1], "dataset": "demo", "dataset_fingerprint": "f",
        "split_fingerprint": "s", "test_classes": 3, "test_images": 9, "method": "dreml",
        "backbone": "b", "embedding_size": 4, "selection": "last", "tuned_by": None, "seed": 0,
        "curve": CURVE,
    }  # fmt: skip
    return Scores(**{**known, **changes})  # type: ignore[arg-type]


class Reader(HTMLParser):
    """The cells of each row, and every address that a tag names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False


def test_the_page_has_a_row_for_each_size() -> None:
    assert Reader(page("run", scores())).rows == [
        ["members", "Recall@1", "R-Precision", "MAP@R"],
        ["1", "50.0", "20.0", "10.0"],
        ["2", "75.0", "30.0", "25.0"],
    ]


def test_the_page_holds_its_picture_and_loads_nothing() -> None:
    text = page("run", scores())
    (address,) = Reader(text).addresses
    kind, content = address.split(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(content))) as image:
        assert image.size == (1120, 640)
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_strange_names_cannot_break_the_page() -> None:
    text = page("<b>run", scores(method="<script>", remarks=["a & b"]))
    assert "<b>" not in text
    assert "<script" not in text
    assert "a &amp; b" in text


def test_commands_start_without_the_libraries_that_draw() -> None:
    """Each takes half a second to import, and most commands draw nothing."""
    code = "import sys, dmlray.reporting.run_report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search(r"\b(matplotlib|jinja2)\b", done.stdout)


def test_control_characters_reach_neither_page_nor_picture(tmp_path: Path) -> None:
    evil = "a\x1b[2J\u202e\n\udcffb"
    text = page(evil, scores(method=evil, dataset=evil, backbone=evil, remarks=[evil]))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count(r"a\x1b[2J\u202e\n\udcffb") >= 4
    folder = RunFolder(tmp_path / evil)
    folder.path.mkdir()
    write_ensemble(folder, scores(method=evil))
    assert (folder.path / "curve.png").exists()


def test_a_merge_without_a_curve_has_its_one_row() -> None:
    text = page("run", scores(curve=[]))
    assert Reader(text).rows[1:] == [["all", "75.0", "30.0", "25.0"]]
    assert "<img" not in text


def test_scores_curve_and_tensorboard_lie_in_the_run_folder(tmp_path: Path) -> None:
    write_ensemble(RunFolder(tmp_path), scores())
    assert read_scores(tmp_path / "scores.json") == scores()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    told = json.loads((tmp_path / "curve.json").read_text())
    assert told["sizes"] == [{"members": n, **metrics} for n, metrics in enumerate(CURVE, 1)]
    assert told["protocol"]["selection"] == "last"
    assert told["protocol"]["test_classes"] == 3
    with Image.open(tmp_path / "curve.png") as image:
        assert (image.format, image.width) == ("PNG", 1120)


def test_a_merge_of_one_row_has_no_curve_to_write(tmp_path: Path) -> None:
    write_ensemble(RunFolder(tmp_path), scores(curve=[]))
    assert not list(tmp_path.glob("curve.*"))
    assert (tmp_path / "scores.json").exists()
