from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from dmlray.errors import DataError, RunError
from dmlray.scores import Scores, half_width, read_scores, read_zero_shot


def example() -> Scores:
    return Scores({"map_at_r": 0.5}, "demo", "f", "s", 2, 9, "dreml", "toy", 8, "last", None, 0)


def test_scores_are_read_as_written(tmp_path: Path) -> None:
    example().write(tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json") == example()


@pytest.mark.parametrize("text", ["", "{", '{"metrics": {}}', "[]"])
def test_damaged_scores_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        read_scores(tmp_path / "scores.json")


def test_missing_scores_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="resume the run"):
        read_scores(tmp_path / "scores.json")


def test_the_half_width_equals_the_interval_of_scipy() -> None:
    values = [0.61, 0.64, 0.62, 0.66]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)


def test_damaged_zero_shot_scores_name_the_remedy(tmp_path: Path) -> None:
    assert read_zero_shot(tmp_path / "zero_shot.json") == {}
    for text in ("", '{"recall_at_1": 0.', "[]", '{"recall_at_1": "x"}', '{"recall_at_1": 7.5}'):
        (tmp_path / "zero_shot.json").write_text(text)
        with pytest.raises(DataError, match=r"is damaged .*; delete it, and the scores are"):
            read_zero_shot(tmp_path / "zero_shot.json")


def test_each_metric_has_its_range(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    legal = {"ami": -0.01, "map_at_r": 0.5, "of_a_later_version": 0.5}
    replace(example(), metrics=legal).write(file)
    assert read_scores(file).metrics == legal
    for name, value in (("map_at_r", -0.01), ("ami", 1.01), ("of_a_later_version", -0.5)):
        replace(example(), metrics={name: value}).write(file)
        with pytest.raises(RunError, match=rf"metrics: {name}: {value} is no"):
            read_scores(file)
