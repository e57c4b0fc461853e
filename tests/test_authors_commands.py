"""Our commands of docs/authors_commands.md: each is understood, and its plan is legal."""

import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from dmlray.cli import main
from dmlray.plans.plan_files import shipped
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.search import read_search

PAGE = (Path(__file__).parent.parent / "docs" / "authors_commands.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]
COMMANDS = [command for row in ROWS for command in re.findall(r"\| `(dmlray [^`]+)`", row)]
NAMES = sorted(
    {
        word
        for command in COMMANDS
        for word in re.findall(r"\w+_(?:cub|cars|sop|inshop)\w*", command)
    }
)
PUBLISHED = {  # R@1 in percent, retyped from the READMEs
    "drml_baseline_cub": 67.3,
    "drml_baseline_cars": 84.4,
    "drml_cub_2021": 68.7,
    "drml_cars_2021": 86.9,
    "drml_cub": 68.7,
    "drml_cars": 86.9,
    "idml_cub": 70.7,
    "idml_cars": 90.6,
    "idml_sop": 81.5,
    "dcml_cub": 68.4,
    "dreml_cub": 63.52,
    "dreml_cars": 84.96,
    "dreml_sop": 73.70,
    "proxy_anchor_cub": 69.1,
    "proxy_anchor_cars": 86.4,
    "proxy_anchor_inshop": 91.9,
}


class Understood(Exception):  # noqa: N818  # control flow, no error
    """The command has read its words and its plan, and would begin."""


def stop(*args: Any, **options: Any) -> NoReturn:
    raise Understood


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(
        Path("runs/rcdml_cub/experiment.yaml"), read_experiment(Path("rcdml_cub")).experiment
    )
    for place in ("runs.open_run", "ensembles.open_run", "runs.evaluate_run", "datasets.verify"):
        monkeypatch.setattr(f"dmlray.api.{place}", stop)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_of_our_commands_is_understood(command: str) -> None:
    program, *words = shlex.split(command)
    result = CliRunner().invoke(main, words)
    assert program == "dmlray"
    assert isinstance(result.exception, Understood), result.output


def test_every_experiment_of_the_authors_has_its_command_and_a_search() -> None:
    experiments = {Path(file).stem for file in shipped(["experiments"])}
    assert set(NAMES) == {name for name in experiments if not name.endswith("_demo")}
    for name in NAMES:
        search = read_search(Path(name))
        assert search.experiment.data.name == name.removesuffix("_2021").rsplit("_", 1)[1]


@pytest.mark.parametrize("name", NAMES)
def test_published_scores_are_those_of_the_page(name: str) -> None:
    resolved = read_experiment(Path(name))
    published = resolved.published()
    assert published
    assert resolved.departures() == []
    if name not in PUBLISHED:
        assert not published.scores
        return
    percent = PUBLISHED[name]
    assert published.scores["recall_at_1"] == pytest.approx(percent / 100)
    row = next(row for row in ROWS if re.search(rf"dmlray [^`]*\b{name} ", row) and " / " in row)
    assert f"| {percent:.1f} / " in row
    asked = {f"recall_at_{k}" for k in resolved.experiment.protocol.recall_at}
    asked |= {"map_at_r", "r_precision", *(["nmi"] if resolved.experiment.protocol.nmi else [])}
    assert set(published.scores) <= asked, "every published score is computed"
