"""A model's threshold reaches its card, its Python object and every form of a query's answer."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dmlray
from dmlray.errors import ConfigError
from dmlray.evaluation.verification import Rate, Threshold
from dmlray.inference.export import export
from dmlray.inference.model import bare_backbone
from dmlray.scores import read_scores

Run = Callable[..., tuple[int, str, str]]
AT = 0.99951171875  # between two photos of the toys and a photo and itself


@pytest.fixture
def run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a command in a folder with vectors of all images by `model`, a copy of a run's."""
    from dmlray.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    export(runs / "a", "model")
    dmlray.embed("model", [runs / "images"], "vectors")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main.main(list(words), prog_name="dmlray")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def give_threshold(model: Path) -> None:
    """Write a threshold at a false match rate of 0.001 into a model folder, as export does."""
    loaded = dmlray.load_model(model)
    scores = loaded.scores
    found = Threshold(AT, 0.001, 0.25, Rate(0.002, 0.001, 0.004), Rate(0.3))
    known = {"fmr_1e-3": found, **scores.verification.thresholds}
    changed = replace(scores, verification=replace(scores.verification, thresholds=known))
    config = loaded.config.model_copy(update={"scores": changed})
    (model / "config.json").write_text(config.model_dump_json(indent=2))


def test_a_model_has_the_thresholds_of_its_run(runs: Path, run: Run) -> None:
    stored = read_scores(runs / "a" / "scores.json").verification
    for folder in (runs / "a", Path("model")):
        model = dmlray.load_model(folder)
        assert model.thresholds == {"best_f1": stored.thresholds["best_f1"].cosine}
        assert model.threshold("best_f1") == stored.thresholds["best_f1"].cosine
        with pytest.raises(ConfigError, match=r"has none for fmr_1e-3 \(128 comparisons .*best_f1"):
            model.threshold()
    give_threshold(Path("model"))
    assert dmlray.load_model("model").threshold() == AT


def test_a_merge_has_thresholds_and_what_is_not_trained_has_none(runs: Path) -> None:
    stored = read_scores(runs / "pca" / "scores.json").verification
    assert (
        dmlray.load_model(runs / "pca").thresholds["best_f1"] == stored.thresholds["best_f1"].cosine
    )
    bare = bare_backbone("timm/test_resnet", "none")
    assert bare.thresholds == {}
    with pytest.raises(ConfigError, match="the model has none: nothing was trained"):
        bare.threshold()


def test_a_query_marks_matches_in_text_csv_and_html(runs: Path, run: Run, tmp_path: Path) -> None:
    give_threshold(Path("model"))
    image = str(runs / "images" / "class03" / "4.png")
    words = ("query", "model", "vectors", image, "-k", "3", "--html", "page.html", "--csv", "f.csv")
    status, out, err = run(*words, "--threshold", "auto")
    assert (status, err) == (0, "")
    ((own, *others),) = dmlray.query("model", "vectors", image, 3, threshold="auto")
    assert [own.match, *(hit.match for hit in others)] == [True, False, False]
    assert "match:        cosine of at least 0.9995\n" in out
    assert f"    1  1.0000  match     {image}  class03\n" in out
    assert out.count("no match") == 2
    with open("f.csv", newline="") as file:
        assert [row["match"] for row in csv.DictReader(file)] == ["yes", "no", "no"]
    page = (tmp_path / "page.html").read_text()
    assert (page.count("<b>match</b>"), page.count("no match")) == (1, 2)
    assert page.count('class="match"') == 1
    assert "a cosine of at least 0.9995" in page
    assert run(*words, "--threshold=-1")[1].count("  match     ") == 3
    status, out, _ = run(*words)
    assert "match" not in out
    assert "match" not in Path("f.csv").read_text()
    assert "match:" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("value", ["1.5", "nan", "often", "-2"])
def test_what_is_no_cosine_is_one_sentence(runs: Path, run: Run, value: str) -> None:
    image = str(runs / "images" / "class03" / "4.png")
    status, out, err = run("query", "model", "vectors", image, f"--threshold={value}")
    assert (status, out) == (2, "")
    assert (
        err == f"--threshold: {value!r} is not allowed. Allowed: auto, or a cosine from -1 to 1\n"
    )


def test_auto_without_a_threshold_is_one_sentence(runs: Path, run: Run) -> None:
    image = str(runs / "images" / "class03" / "4.png")
    status, out, err = run("query", "model", "vectors", image, "--threshold", "auto")
    assert (status, out) == (2, "")
    assert err.startswith("--threshold: the model has none for fmr_1e-3 (128 comparisons")
    assert err.count("\n") == 1
    dmlray.embed(runs / "three", [runs / "images" / "class00"], "others")
    status, out, err = run("query", str(runs / "three"), "others", image, "--threshold", "auto")
    assert status == 2
    assert err.startswith("--threshold: the model has none: ")
    assert err.count("\n") == 1


def test_the_card_has_a_row_for_each_threshold_or_the_reason(runs: Path, run: Run) -> None:
    give_threshold(Path("model"))
    export("model", "again")
    card = Path("again/README.md").read_text()
    assert "| FMR 0.1 % | 0.9995 | 0.1 | 25 | 0.2 (0.1 to 0.4) | 30 |" in card
    assert "| best F1 | " in card
    assert (
        "16 images of 2 training classes that were held out (112 comparisons of one class" in card
    )
    assert "Too few comparisons for an FMR of 1 %, 0.01 %." in card
    export(runs / "three", "ensemble")
    assert "## Threshold\n\nThere is none: " in Path("ensemble/README.md").read_text()
