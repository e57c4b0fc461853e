"""Runs are ranked within their protocol only, and tested in pairs."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

import dmlray
from dmlray.cli import main
from dmlray.errors import ConfigError, DataError
from dmlray.learn.embedding_files import read_items
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import repeats
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import average
from dmlray.results.comparison import Comparison
from dmlray.scores import ScorePart, Scores, read_scores
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))
EXPERIMENT = Path("experiments/proxy_anchor_demo.yaml").absolute()


def plan_of(words: list[str]) -> Experiment:
    return read_experiment(EXPERIMENT, words).experiment


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two trainings of one protocol, and one of another dimension."""
    root = tmp_path_factory.mktemp("compared")
    words = toy_words(draw_images(root / "images", images=4), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        for name, more in (
            ("a", ["method.dim=16"]),
            ("b", ["method.dim=16", "seed=7", "method.margin=0.3"]),
            ("small", ["method.dim=8"]),
        ):
            plan = plan_of([*words, *more])
            run_training(plan, RunFolder(root / name), lambda epoch: None, HERE, False)
        yield root


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies in the working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(*runs: str, **options: object) -> Comparison:
    return dmlray.compare(runs, display=None, **options).comparison  # type: ignore[arg-type]


def repeat(
    folder: Path, name: str, values: list[float], seeds: list[int], **changes: object
) -> str:
    """A finished repeat with these values of MAP@R."""
    plan = read_experiment(folder / "a" / "experiment.yaml").experiment
    repeats(plan, len(values)).write(folder / name / "repeat.yaml")
    shared: Scores = replace(read_scores(folder / "a" / "scores.json"), **changes)  # type: ignore[arg-type]
    parts = [
        ScorePart(seed, shared.split_fingerprint, 1, {**shared.metrics, "map_at_r": value})
        for seed, value in zip(seeds, values, strict=True)
    ]
    replace(average(shared, parts), embeddings_sha256=None).write(folder / name / "scores.json")
    return name


def test_single_runs_are_tested_by_class(folder: Path) -> None:
    (group,) = compared("a", "b", sort="recall_at_1").groups
    values = [run.scores.metrics["recall_at_1"] for run in group.runs]
    assert values == sorted(values, reverse=True)
    (pair,) = group.pairs
    assert pair.difference is not None
    assert pair.paired_by == "test class"
    assert pair.difference.value == pytest.approx(values[0] - values[1])
    assert pair.difference.low <= pair.difference.value <= pair.difference.high
    assert pair.difference.pairs == 6


def test_a_clear_difference_is_significant_and_the_same_run_is_not(folder: Path) -> None:
    items = read_items(folder / "a" / "items.csv")
    rows = np.zeros((len(items.files), 16), np.float32)
    rows[np.arange(len(rows)), [int(label[-2:]) % 16 for label in items.classes]] = 1
    np.save(folder / "a" / "embeddings.npy", rows)
    scores = replace(read_scores(folder / "a" / "scores.json"), embeddings_sha256=None)
    perfect = dict.fromkeys(scores.metrics, 1.0)
    replace(scores, metrics=perfect).write(folder / "a" / "scores.json")
    shutil.copytree(folder / "a", folder / "twin")
    pairs = {
        (pair.better.name, pair.worse.name): pair
        for pair in compared("b", "a", "twin").groups[0].pairs
    }
    assert pairs["a", "b"].significant
    assert pairs["a", "b"].difference.low > 0
    assert pairs["a", "b"].corrected == pytest.approx(3 * 2 / 10_001)
    assert not pairs["a", "twin"].significant
    assert pairs["a", "twin"].corrected == 1


def test_repeats_are_tested_by_equal_seeds(folder: Path) -> None:
    one = repeat(folder, "one", [0.50, 0.56, 0.61, 0.40], [1, 2, 3, 9])
    other = repeat(folder, "other", [0.55, 0.48, 0.59, 0.80], [2, 1, 3, 5])
    (pair,) = compared(one, other).groups[0].pairs
    sign = 1 if pair.better.name == "one" else -1
    expected = stats.ttest_rel([0.50, 0.56, 0.61], [0.48, 0.55, 0.59])
    assert pair.difference is not None
    assert (pair.paired_by, pair.difference.pairs) == ("seed", 3)
    assert pair.difference.p == pytest.approx(expected.pvalue)
    assert pair.difference.value == pytest.approx(sign * np.mean([0.02, 0.01, 0.02]))


def test_repeats_without_common_seeds_are_not_tested(folder: Path) -> None:
    one = repeat(folder, "one", [0.5, 0.6], [1, 2])
    other = repeat(folder, "other", [0.5, 0.7], [3, 4])
    (pair,) = compared(one, other).groups[0].pairs
    assert pair.difference is None
    assert "0 common seeds" in pair.reason
    assert "not tested (0 common seeds" in dmlray.compare([one, other], display=None).text()


def test_unlike_protocols_are_never_ranked_together(folder: Path) -> None:
    several = repeat(folder, "several", [0.9, 0.8], [1, 2], selection="validation")
    found = compared("a", "small", several, "b")
    assert [[run.name for run in group.runs] for group in found.groups[1:]] == [
        ["small"], ["several"]
    ]  # fmt: skip
    assert {run.name for run in found.groups[0].runs} == {"a", "b"}
    assert found.differs(found.groups[1]) == ["dimension 8, not 16"]
    assert found.differs(found.groups[2]) == ["selection validation, not last", "n 2, not 1"]
    text = dmlray.compare(["a", "small"], display=None).text()
    assert "not ranked with protocol 1: dimension 8, not 16" in text


def test_runs_of_other_images_are_another_protocol(folder: Path) -> None:
    scores = read_scores(folder / "b" / "scores.json")
    replace(scores, dataset_fingerprint="other").write(folder / "b" / "scores.json")
    found = compared("a", "b")
    assert len(found.groups) == 2
    assert "other" in found.differs(found.groups[1])[0]


def test_a_run_without_items_is_tested_by_its_listed_images(folder: Path) -> None:
    expected = compared("a", "b").groups[0].pairs
    (folder / "a" / "items.csv").unlink()
    found = compared("a", "b").groups[0].pairs
    assert found[0].difference == expected[0].difference


@pytest.mark.parametrize("format", ["text", "md", "latex", "csv", "html"])
def test_strange_names_are_escaped_in_each_format(folder: Path, format: str) -> None:
    hostile = "<script>|\x1b[31m\n&_%\\"
    scores = read_scores(folder / "a" / "scores.json")
    replace(scores, method=hostile, dataset=hostile).write(folder / "a" / "scores.json")
    result = CliRunner().invoke(main, ["compare", "a", "small", "--format", format])
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "\x1b" not in text
    assert "n 1" in text.replace("n,", "n 1")
    if format in ("md", "html"):
        assert "<script" not in text
        assert "&lt;script" in text
    if format == "md":
        assert r"\|" in text
    if format == "latex":
        assert r"\&\_\%\textbackslash{}" in text
        assert r"\begin{tabular}{rll" in text
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        values = json.loads((folder / "a" / "scores.json").read_text())["metrics"]
        assert {row["row"] for row in rows} == {"run"}
        assert float(rows[0]["map_at_r"]) == values["map_at_r"]


def test_published_scores_stand_apart_with_what_differs(folder: Path) -> None:
    plan = read_experiment(folder / "a" / "experiment.yaml").experiment
    data = plan.data.model_copy(update={"name": "cub"})
    write_experiment(folder / "a" / "experiment.yaml", plan.model_copy(update={"data": data}))
    text = dmlray.compare(["a"], published=True, display=None).text()
    assert "Published scores, not ranked" in text
    assert "69.1" in text
    assert "Differs: settings" in text
    assert "backbone.name" in text
    assert "the authors chose the epoch on the test classes" in text
    none = dmlray.compare(["b"], published=True, display=None).text()
    assert "none for these methods" in none


def _without_scores(folder: Path) -> list[str]:
    (folder / "b" / "scores.json").unlink()
    return ["a", "b"]


def _damaged_scores(folder: Path) -> list[str]:
    (folder / "b" / "scores.json").write_text("{")
    return ["a", "b"]


def _a_search(folder: Path) -> list[str]:
    (folder / "b" / "experiment.yaml").rename(folder / "b" / "search.yaml")
    return ["a", "b"]


def _other_embeddings(folder: Path) -> list[str]:
    shutil.copy(folder / "small" / "embeddings.npy", folder / "b" / "embeddings.npy")
    return ["a", "b"]


def _other_rows(folder: Path) -> list[str]:
    path = folder / "b" / "embeddings.npy"
    np.save(path, np.load(path)[::5][np.arange(24) % 5])
    scores = read_scores(folder / "b" / "scores.json")
    replace(scores, embeddings_sha256=None).write(folder / "b" / "scores.json")
    return ["a", "b"]


def _other_items(folder: Path) -> list[str]:
    path = folder / "b" / "items.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return ["a", "b"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_scores, "b: has no scores yet"),
        (_damaged_scores, "is damaged"),
        (_a_search, "is a search, which has no scores on test classes"),
        (_other_embeddings, "has shape"),
        (_other_rows, "b: its embeddings give map_at_r"),
        (_other_items, "lists 23 images, the embeddings are of 24"),
        (lambda folder: ["a", "./a"], "is given twice"),
        (lambda folder: ["a", "nowhere"], "is not a run folder"),
        (lambda folder: ["a", "--sort", "r@1"], "r@1 is not a score of all runs. Allowed: recall"),
        (lambda folder: [], "RUN: is empty"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    result = CliRunner().invoke(main, ["compare", *change(folder)])
    assert result.exit_code == 2
    assert not result.stdout
    (line,) = [line for line in result.stderr.splitlines() if "ranking" not in line]
    assert sentence in line


def test_errors_of_the_python_api(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is one path"):
        dmlray.compare("a")
    with pytest.raises(ConfigError, match="Allowed: text, md"):
        dmlray.compare(["a"], display=None).text("pdf")
    (folder / "b" / "items.csv").write_text("path\n")
    with pytest.raises(DataError, match=r"items.csv: is not a table"):
        compared("a", "b")


def test_a_result_is_a_table(folder: Path) -> None:
    records = dmlray.compare(["a", "b"], display=None).records()
    assert [row["row"] for row in records] == ["run", "run", "difference"]
    assert records[2]["significant"] in ("significant", "not significant")
    assert len({tuple(row) for row in records}) == 1
