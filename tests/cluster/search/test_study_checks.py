"""A study that is missing, damaged or in use gives one sentence or the right scores."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dmlray import api
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.cluster.search.study_checks import read_study
from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, read_search
from tests.cluster.broken_studies import MUTATIONS, RIGHT, flip
from tests.cluster.search.test_searcher import opened, plan, report, told

WORDS = ("trials=12", "sampler=random")
FLIPS = 30
NAMES = [
    "lr=1?a", "a%2Fb", "a#b", "a b", "a'b\"c", ":memory:", "file:x", "[x]*", "-x", "a\nb", "é日本",
    "%(x)s", "{SCHEMA_VERSION}", "~", "a\\b", "s3:", "$HOME",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a search with complete, pruned, failed, running and repeated trials."""
    folder = tmp_path_factory.mktemp("whole")
    study = opened(folder, *WORDS)
    for number in range(7):
        told(study, f"t{number}")
    told(study, "stopped", epochs=1)
    told(study, "failed", error="out of memory")
    study.suggest("begun")
    study.flush()
    assert {"same_as" in row.user_attrs for row in study.study.trials} == {True, False}
    return folder


@pytest.fixture(scope="module")
def right(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """The scores of `whole`."""
    return scores(*copy(whole, tmp_path_factory.mktemp("right")))


def copy(whole: Path, tmp_path: Path) -> tuple[Search, RunFolder]:
    shutil.copytree(whole, tmp_path / "run")
    return read_search(tmp_path / "run" / "search.yaml", WORDS), RunFolder(tmp_path / "run")


def scores(plan: Search, folder: RunFolder) -> list[tuple[object, ...]]:
    """Return the results of each trial, except the text of failures."""
    rows = report(StudySearcher(plan, folder)).rows
    return [(r.number, r.state, r.metrics, r.values, r.epochs, r.same_as) for r in rows]


def content(folder: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_study_is_refused_in_one_sentence_or_gives_the_same_scores(
    name: str, whole: Path, right: list[tuple[object, ...]], tmp_path: Path
) -> None:
    plan, folder = copy(whole, tmp_path)
    mutate, complaint = MUTATIONS[name]
    mutate(folder.study)
    before = content(folder)
    if complaint == RIGHT:
        assert scores(plan, folder) == right
        return
    with pytest.raises(ConfigError) as refusal:
        StudySearcher(plan, folder)
    message = str(refusal.value)
    assert message.startswith(f"{folder}/s")
    assert complaint in message
    assert "contradicts" in message or "Restore it" in message or "Allowed" in message
    assert refusal.value.exit_status == 2
    assert content(folder) == before


@pytest.mark.parametrize("seed", range(FLIPS))
def test_flipped_bytes_of_a_study_change_no_score(
    seed: int, whole: Path, right: list[tuple[object, ...]], tmp_path: Path
) -> None:
    plan, folder = copy(whole, tmp_path)
    flip(seed)(folder.study)
    try:
        found = scores(plan, folder)
    except ConfigError:
        return
    assert found == right


def test_a_study_in_use_is_refused_after_a_timeout(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmlray.cluster.search.study_checks.PATIENCE", 0.1)
    plan, folder = copy(whole, tmp_path)
    with closing(sqlite3.connect(folder.study)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match=r"study\.db: is in use by another process"):
            StudySearcher(plan, folder)
    assert read_study(plan, folder)


def test_a_transaction_of_a_killed_process_is_rolled_back(
    whole: Path, right: list[tuple[object, ...]], tmp_path: Path
) -> None:
    """A read-only reader could not roll back SQLite's journal."""
    plan, folder = copy(whole, tmp_path)
    with closing(sqlite3.connect(folder.study, isolation_level=None)) as file:
        file.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the end
        file.execute("BEGIN")
        file.execute("UPDATE trials SET number = 0")
        file.execute("CREATE TABLE filling AS SELECT zeroblob(1000000)")
        journal = folder.study.with_name("study.db-journal")
        shutil.copy(folder.study, tmp_path / "db")
        shutil.copy(journal, tmp_path / "journal")
    shutil.copy(tmp_path / "db", folder.study)
    shutil.copy(tmp_path / "journal", journal)
    assert scores(plan, folder) == right


def test_the_command_refuses_before_anything_is_trained_or_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = copy(whole, tmp_path)
    read_search(folder.plan("search"), WORDS).write(folder.plan("search"))
    monkeypatch.setattr("dmlray.api.searches.session", lambda *_: pytest.fail("Ray was started"))
    folder.study.unlink()
    before = content(folder)
    with pytest.raises(ConfigError, match=r"study\.db: is missing, trials/0000 is not"):
        api.tune(resume=folder.path)
    assert content(folder) == before


def test_a_folder_without_a_study_gets_one(tmp_path: Path) -> None:
    assert read_study(plan(tmp_path), RunFolder(tmp_path)) == []
    assert not (tmp_path / "study.db").exists()
    study = opened(tmp_path)
    assert told(study, "t0")
    study.flush()
    assert [path.name for path in tmp_path.glob("*study*")] == ["study.db"]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_in_its_folder_whatever_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    study = opened(tmp_path / name)
    told(study, "t0")
    study.flush()
    assert len(opened(tmp_path / name).finished()) == 1
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
        "search.yaml",
        "study.db",
        "trials",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [name]
