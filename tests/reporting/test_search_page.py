"""The page of a search shows what its files hold, escapes it, and loads nothing."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from click.testing import CliRunner

import dmlray
from dmlray.cli import main
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.learn import metrics_log
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.search_report import Row, SearchReport
from tests.reporting.test_run_report import Reader, scores

SEARCH = """experiment:
  method: {name: proxy_anchor}
  data: {name: demo}
  budget: {epochs: 3}
use_method_space: false
folds: 2
space:
  method.margin: {low: 0.0, high: 0.4, step: 0.1}
  method.dim: {choices: [128, 512]}
  optimizer.lr: {low: 1.0e-5, high: 1.0e-3, log: true, when: {method.dim: 512}}
"""
HOSTILE = "<script>alert(1)</script>\n\x1b"
ENDS = {3: (1, None), 5: (1, HOSTILE)}  # trial -> epochs, reason of its failure


def folds_of(number: int, epoch: int) -> list[float]:
    side = 0.005 + 0.002 * number
    return [0.3 + 0.01 * number + 0.02 * epoch + side for side in (-side, side)]


def run_search(folder: RunFolder, trials: int, *words: str) -> None:
    """What a search leaves behind, without Ray: a later trial is better."""
    (folder.path.parent / "search.yaml").write_text(SEARCH)
    plan = read_search(folder.path.parent / "search.yaml", [*words, f"trials={trials}"])
    plan.write(folder.plan("search"))
    study = StudySearcher(plan, folder)
    for number in range(trials):
        config: Any = study.suggest(f"t{number}")
        trial = folder.trial(config["number"])
        trial.path.mkdir(parents=True)
        epochs, failure = ENDS.get(number, (3, None))
        for epoch in range(1, epochs + 1):
            folds = folds_of(number, epoch)
            line = {"map_at_r": fmean(folds), "seconds": 2.0 * epoch, "embedding_size": number}
            line |= {f"fold{n}/map_at_r": value for n, value in enumerate(folds)}
            metrics_log.append(trial.metrics, {"epoch": epoch, **line})
            study.on_trial_result(f"t{number}", {"epoch": epoch, **line})
        ended = {"epoch": epochs, **line} | ({"error": failure} if failure else {})
        study.on_trial_complete(f"t{number}", ended)
    study.flush()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A search of ten trials, of which one was stopped early and one failed, with its page."""
    folder = RunFolder(tmp_path_factory.mktemp("searched") / "run")
    run_search(folder, 10)
    text_of(folder)
    return folder


@pytest.fixture
def text(searched: RunFolder) -> str:
    return searched.report.read_text(encoding="utf-8")


@pytest.fixture
def run(searched: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of that search without its report."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(searched.path, "run")
    for name in ("report.html", "trials.json"):
        Path("run", name).unlink()
    return RunFolder(tmp_path / "run")


def text_of(run: RunFolder) -> str:
    done = CliRunner().invoke(main, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert done.output == f"report:  {run}/report.html\n"
    return run.report.read_text(encoding="utf-8")


def test_the_page_has_every_trial_with_its_reason(searched: RunFolder, text: str) -> None:
    stored = json.loads(searched.trials.read_text())
    rows = {row[0]: row[1:] for row in Reader(text).rows if row and row[0].isdigit()}
    assert len(rows) == len(stored["trials"]) == 10
    assert rows["4"][:5] == ["complete", "40.00%", "1.30%", "3/3", "6"]
    assert rows["3"][:4] == ["stopped early", "35.00%", "1.10%", "1/3"]
    assert rows["5"][0] == r"failed: <script>alert(1)</script>\n\x1b"
    assert "Best of 10 trials: trial 9 with MAP@R 45.00%." in text
    assert "optuna-dashboard sqlite:///study.db" in text


def test_it_says_what_was_spent_and_saved(text: str) -> None:
    epochs, seconds = 8 * 3 + 2, 8 * 6.0 + 2 * 2.0
    assert f"{epochs} of 30 planned epochs were trained (each of all folds), in {seconds} s" in text
    assert "Trials stopped early: 1. That saved 2 epochs, about 4.0 s" in text


def test_it_says_whether_the_winner_is_better_than_trial_0(text: str) -> None:
    best, first = folds_of(9, 3), folds_of(0, 3)
    gain = fmean(best) - fmean(first)
    spread = stdev([best[0] - first[0], best[1] - first[1]])
    assert (
        f"MAP@R is {100 * gain:.2f} points above trial 0, the experiment's own settings: more than "
        f"its spread between folds (standard deviation {100 * spread:.2f} points); "
        "better on 2 of 2 folds"
    ) in text.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("values", "clear"), [([0.5, 0.7], False), ([0.61, 0.63], True), ([0.5, 0.5], False)]
)
def test_a_gain_within_the_spread_is_not_called_more(values: list[float], clear: bool) -> None:
    rows = [
        Row(number, "COMPLETE", {"map_at_r": fmean(folds)}, {}, folds=folds)
        for number, folds in enumerate([[0.49, 0.51], values])
    ]
    report = SearchReport(("map_at_r",), rows, rows[1])
    assert report.gain.is_clear is clear
    assert (": more than" in next(report.verdict())) is clear


def test_the_pictures_are_all_there(text: str) -> None:
    slices = re.findall(r'alt="Score over ([\w.]+)"', text)
    assert sorted(slices) == ["method.dim", "method.margin", "optimizer.lr"]
    for name in ("Trials, as in the table", "Importance of each key", "All settings of each trial"):
        assert f'alt="{name}' in text


def test_the_page_loads_nothing_and_allows_its_own_script_only(text: str) -> None:
    assert all(address.startswith("data:image/png") for address in Reader(text).addresses)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_search_that_goes_on_or_was_killed_has_a_page_too(run: RunFolder) -> None:
    shutil.rmtree(run.trial(9).path.parent)  # only the study is left
    text = text_of(run)
    assert "Best of 10 trials: trial 9" in text
    assert "above trial 0" not in text  # folds are not known any more


def test_few_or_no_complete_trials_have_a_page(tmp_path: Path) -> None:
    few = RunFolder(tmp_path / "few")
    run_search(few, 1)
    text = text_of(few)
    assert "The best trial is trial 0: the experiment&#39;s own settings." in text
    assert "Not estimated: it needs eight complete trials" in text


def test_several_metrics_have_their_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENDS, 3, (3, None))
    several = RunFolder(tmp_path / "several")
    run_search(several, 6, "metric=[map_at_r,embedding_size]")
    text = text_of(several)
    assert 'alt="MAP@R and embedding_size' in text


def test_repeats_of_the_winner_stand_on_the_page(run: RunFolder) -> None:
    run.repeat.path.mkdir()
    scores(curve=[]).write(run.repeat.scores)
    text = text_of(run)
    assert "The winner on test classes" in text
    assert ["MAP@R", "25.0"] in Reader(text).rows


def tear_repeats(run: RunFolder) -> None:
    run.repeat.path.mkdir()
    run.repeat.scores.write_text("torn")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: run.study.unlink(), "study.db: is missing, "),
        (lambda run: run.study.write_bytes(b"torn"), "study.db: is damaged"),
        (lambda run: run.plan("search").write_text("a: 1"), "search.yaml"),
        (tear_repeats, "scores.json"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_no_page(
    run: RunFolder, spoil: Any, sentence: str
) -> None:
    spoil(run)
    done = CliRunner().invoke(main, ["report", "run"])
    assert done.exit_code in (1, 2)
    assert sentence in done.output
    assert "Traceback" not in done.output
    assert not run.report.exists()


def test_a_search_without_an_ended_trial_or_with_a_projector_is_refused(run: RunFolder) -> None:
    done = CliRunner().invoke(main, ["report", "run", "--projector"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "--projector: run is a search without embeddings. Allowed: a training of" in done.output
    new = RunFolder(Path("new"))
    shutil.copytree("run", "new")
    new.study.unlink()
    shutil.rmtree("new/trials")
    done = CliRunner().invoke(main, ["report", "new"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "new: none of its trials has ended yet; go on with --resume" in done.output


def test_python_gets_the_report(run: RunFolder) -> None:
    found = dmlray.report("run", display=None)
    assert [row["trial"] for row in found.records()] == list(range(10))
