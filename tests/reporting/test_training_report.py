"""The report of a training shows what its files hold, escapes it, and runs one script only."""

import base64
import csv
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dmlray
from dmlray.api import runs
from dmlray.cli import main
from dmlray.cluster import train as cluster_train
from dmlray.errors import ConfigError
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble, repeats
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import score_members
from dmlray.results.error_analysis import analyse
from dmlray.results.scored_images import scored_images
from dmlray.scores import Scores, read_scores
from tests.reporting.test_run_report import Reader, scores
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))
EXPERIMENT = Path("experiments/proxy_anchor_demo.yaml").absolute()
HOSTILE = "<script>alert(1)<|script>\n&"  # as names of folders, in which no "/" can be


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A training, on images of which one class has a hostile name; and two repeats."""
    root = tmp_path_factory.mktemp("reported")
    images = draw_images(root / "images", images=4)
    (images / "class11").rename(images / f"class11{HOSTILE}")
    words = [*toy_words(images, 2), "protocol.selection=validation", "protocol.folds=3"]
    plan = read_experiment(EXPERIMENT, words).experiment
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        run_training(plan, RunFolder(root / "one"), lambda epoch: None, HERE)
        twice, folder = repeats(plan, 2), RunFolder(root / "twice")
        twice.write(folder.plan("repeat"))
        for index in range(2):
            run_training(twice.member(index), folder.member(index), lambda epoch: None, HERE, False)
        score_members(twice, folder)
        yield root


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one", "twice"):
        shutil.copytree(trained / name, tmp_path / name)
    monkeypatch.setenv("DMLRAY_CACHE", str(trained / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text_of(run: str, **options: Any) -> str:
    dmlray.report(run, display=None, **options)
    return Path(run, "report.html").read_text(encoding="utf-8")


def test_the_page_has_all_scores_with_interval_and_protocol(folder: Path) -> None:
    text, stored = text_of("one"), read_scores(folder / "one" / "scores.json")
    rows = {row[0]: row[1:] for row in Reader(text).rows if row}
    for name, shown in (("recall_at_2", "Recall@2"), ("map_at_r", "MAP@R")):
        zero, value = stored.zero_shot[name], stored.metrics[name]
        assert rows[shown][:2] == [f"{100 * zero:.1f}", f"{100 * value:.1f}"]
    low, high = map(float, rows["MAP@R"][2].split(" to "))
    assert low <= 100 * stored.metrics["map_at_r"] <= high
    for words in (
        "24 images of 6 classes never seen",
        f"fingerprint {stored.dataset_fingerprint}",
        "The epoch was chosen on training classes that were held out",
        "Scores of each epoch, on held-out training classes",
    ):
        assert words in text


def test_the_page_loads_nothing_and_allows_its_own_script_only(folder: Path) -> None:
    text = text_of("one")
    assert all(address.startswith("data:image/") for address in Reader(text).addresses)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "http:" not in text
    assert "https:" not in text
    assert "alert(1)<|" not in text
    assert r"class11&lt;script&gt;alert(1)&lt;|script&gt;\n&amp;" in text


def test_the_grid_marks_hits_and_misses(folder: Path) -> None:
    text = text_of("one", images=24)
    stored = read_scores(folder / "one" / "scores.json")
    found = analyse(scored_images(RunFolder(folder / "one"), stored))
    classes = found.images.classes
    grids = text.partition("Most confused")[0].split('<div class="row">')[1:]
    chosen = [query for queries in found.queries(24).values() for query in queries]
    assert len(chosen) == 24
    for grid, query in zip(grids, chosen, strict=True):
        kinds = re.findall(r'<figure class="(\w+)">', grid)
        expected = [
            "hit" if classes[other] == classes[query] else "miss"
            for other in found.neighbours.indices[query].tolist()
        ]
        assert kinds == ["query", *expected]


def test_the_values_behind_the_page_give_the_scores(folder: Path) -> None:
    stored = read_scores(folder / "one" / "scores.json")
    found = analyse(scored_images(RunFolder(folder / "one"), stored))
    for name, values in found.values.items():
        assert np.nanmean(values) == pytest.approx(stored.metrics[name])
    assert sum(row.recall_at_1 * row.images for row in found.classes) / 24 == pytest.approx(
        stored.metrics["recall_at_1"]
    )
    chosen = found.queries(9)
    assert list(map(len, chosen.values())) == [3, 3, 3]
    assert len({found.images.classes[query] for query in chosen["Best queries"]}) == 3
    worst, best = (
        found.values["map_at_r"][chosen[f"{kind} queries"]] for kind in ("Worst", "Best")
    )
    assert worst.min() == found.values["map_at_r"].min()
    assert best.max() == found.values["map_at_r"].max()
    assert [sum(map(len, found.queries(count).values())) for count in (0, 1, 2, 4, 24)] == [
        0, 1, 2, 4, 24
    ]  # fmt: skip


def test_tables_of_errors_lie_beside_the_page(folder: Path) -> None:
    rows = np.load(folder / "one" / "embeddings.npy")
    rows[23] = rows[0]
    np.save(folder / "one" / "embeddings.npy", rows)
    content = json.loads((folder / "one" / "scores.json").read_text())
    (folder / "one" / "scores.json").write_text(json.dumps({**content, "embeddings_sha256": None}))
    assert "alike" in text_of("one")
    tables = {
        name: list(csv.DictReader((folder / "one" / f"{name}.csv").open(newline="")))
        for name in ("classes", "confusions", "suspects")
    }
    assert len(tables["classes"]) == 6
    assert tables["suspects"][0]["path"] == "class06/0.png"
    assert tables["suspects"][0]["other_class"] == f"class11{HOSTILE}"
    misses = sum(int(row["images"]) for row in tables["confusions"])
    recalls = [float(row["recall_at_1"]) * int(row["images"]) for row in tables["classes"]]
    assert misses == 24 - round(sum(recalls))


def test_no_pictures_on_request_and_where_images_have_moved(folder: Path) -> None:
    with_pictures = text_of("one", images=3)
    assert "data:image/jpeg" in with_pictures
    none = text_of("one", images=0)
    assert "data:image/jpeg" not in none
    assert "Worst queries" not in none
    assert "Classes" in none
    plan = folder / "one" / "experiment.yaml"
    plan.write_text(re.sub(r"root: .*", "root: /moved/away", plan.read_text()))
    moved = text_of("one", images=3)
    assert "data:image/jpeg" not in moved
    assert "No pictures: " in moved
    assert "Worst" in moved


def test_published_scores_stand_beside_them_with_what_differs(folder: Path) -> None:
    plan = folder / "one" / "experiment.yaml"
    plan.write_text(plan.read_text().replace("name: folder", "name: cub"))
    text = text_of("one")
    rows = {row[0]: row[1:] for row in Reader(text).rows if row}
    assert rows["Recall@1"][-1] == "69.1"
    assert "Differs: settings" in text
    assert "the authors chose the epoch on the test classes" in text


def test_a_repeat_has_a_page_of_its_parts(folder: Path) -> None:
    text, stored = text_of("twice"), read_scores(folder / "twice" / "scores.json")
    rows = {row[0]: row[1:] for row in Reader(text).rows if row}
    parts = [part.metrics["map_at_r"] for part in stored.parts]
    shown = [*parts, stored.metrics["map_at_r"], stored.half_width["map_at_r"]]
    assert rows["MAP@R"] == [f"{100 * value:.1f}" for value in shown]
    assert "n = 2" in text
    assert "Worst queries" not in text


def test_an_ensemble_has_its_page_of_sizes_again(folder: Path) -> None:
    plan = read_experiment(folder / "one" / "experiment.yaml").experiment
    Ensemble(plan, 2, "seed").write(folder / "both" / "ensemble.yaml")
    scores(method="dreml").write(folder / "both" / "scores.json")
    assert [row[0] for row in Reader(text_of("both")).rows] == ["members", "1", "2"]


def test_a_training_ends_with_its_report(
    trained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(plan: Experiment, run: RunFolder, cluster: object, display: object) -> Scores:
        return run_training(plan, run, lambda epoch: None, HERE, False)

    monkeypatch.setattr(cluster_train, "train", train)
    monkeypatch.setattr(cluster_train, "resources_of", lambda plan, cluster: (1, 0))
    monkeypatch.setattr(runs, "fill_caches", lambda *_: None)
    monkeypatch.setattr(runs, "session", lambda *_: nullcontext())
    words = toy_words(trained / "images", 1)
    dmlray.train(EXPERIMENT, words, out="new", display=None)
    assert "Worst queries" in Path("new/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere: is not a run folder"),
        (["unscored"], "has no scores yet"),
        (["one", "--images", "-1"], "--images: -1 is not allowed. Allowed: 0 to 1000"),
        (["torn"], "embeddings.npy: cannot be read"),
        (["unlisted"], "items.csv: is not a table"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    folder: Path, words: list[str], sentence: str
) -> None:
    for name in ("unscored", "torn", "unlisted"):
        shutil.copytree("one", name)
    Path("unscored/scores.json").unlink()
    Path("torn/embeddings.npy").write_bytes(b"torn")
    Path("unlisted/items.csv").write_text("a,b\n")
    result = CliRunner().invoke(main, ["report", *words])
    assert result.exit_code == 2
    assert not result.stdout
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("writing"))
    assert sentence in line
    assert not Path(words[0], "report.html").exists()


def test_errors_of_the_python_api(folder: Path) -> None:
    with pytest.raises(ConfigError, match="`images`: True is not allowed"):
        dmlray.report("one", images=True, display=None)
