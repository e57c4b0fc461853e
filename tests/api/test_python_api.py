"""`import dmlray`: cheap, documented, and everything that the command line does."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import dmlray
from dmlray import api
from dmlray.api.run_results import RunResult, SearchResult
from dmlray.cli import main
from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.search_report import Row, SearchReport
from dmlray.scores import ScorePart, Scores

HEAVY = ["torch", "ray", "click", "optuna", "numpy", "pandas", "pydantic", "yaml", "rich"]
FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]
DEMO = "experiments/proxy_anchor_demo.yaml"


def imported(code: str) -> set[str]:
    script = f"import sys; {code}; import json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_dmlray_imports_nothing_else() -> None:
    modules = imported("import dmlray; dir(dmlray)")
    assert not modules & set(HEAVY)
    assert {name for name in modules if name.startswith("dmlray")} == {"dmlray"}


def test_a_record_is_imported_without_ray() -> None:
    assert not imported("import dmlray; dmlray.DmlrayError") & {"torch", "ray", "click"}
    modules = imported("import dmlray; dmlray.Scores")
    assert "dmlray.scores" in modules
    assert not modules & {"ray", "optuna", "click"}


@pytest.mark.parametrize("name", dmlray.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    assert name in dir(dmlray)
    assert inspect.getdoc(getattr(dmlray, name))


def test_only_public_names_are_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = dmlray.trian
    assert set(FUNCTIONS) <= set(dmlray.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_documents_its_parameters(name: str) -> None:
    text = inspect.getdoc(getattr(api, name)) or ""
    missing = [
        parameter
        for parameter in inspect.signature(getattr(api, name)).parameters
        if f"{parameter}:" not in text.partition("Args:")[2]
    ]
    assert not missing


@pytest.mark.parametrize("name", ["losses", "evaluation", "methods"])
def test_packages_export_what_they_list(name: str) -> None:
    package = getattr(dmlray, name)
    assert package.__all__
    assert all(getattr(package, each).__doc__ for each in package.__all__)


@pytest.mark.parametrize("name", ["train", "tune", "cv", "repeat", "ensemble", "merge", "evaluate"])
def test_each_option_is_a_parameter(name: str) -> None:
    function = getattr(api, {"cv": "cross_validate"}.get(name, name))
    options = {p.name for p in main.commands[name].params if isinstance(p, click.Option)}
    assert options - {"trials"} <= set(inspect.signature(function).parameters)


def scores(**more: Any) -> Scores:
    known: dict[str, Any] = {
        "metrics": {"recall_at_1": 0.5, "map_at_r": 0.25},
        "dataset": "a<b>",
        "dataset_fingerprint": "d",
        "split_fingerprint": "s",
        "test_classes": 3,
        "test_images": 12,
        "method": "margin",
        "backbone": "resnet18",
        "embedding_size": 8,
        "selection": "last",
        "tuned_by": None,
        "seed": 0,
    }
    return Scores(**{**known, **more})


@pytest.mark.parametrize(
    ("more", "rows", "last"),
    [
        ({}, ["margin"], 0.5),
        ({"zero_shot": {"recall_at_1": 0.1}}, ["zero-shot (no training)", "margin"], 0.5),
        ({"curve": [{"recall_at_1": 0.4}, {"recall_at_1": 0.5}]}, ["1 merged", "2 merged"], 0.5),
        (
            {
                "n": 2,
                "parts": [ScorePart(seed, "s", 1, {"recall_at_1": seed / 10}) for seed in (3, 4)],
                "half_width": {"recall_at_1": 0.01},
            },
            ["seed 3", "seed 4", "mean of 2", "95 % half-width"],
            0.01,
        ),
    ],
)
def test_a_run_is_a_data_frame(more: Any, rows: list[str], last: float, tmp_path: Path) -> None:
    result = RunResult(scores(**more), RunFolder(tmp_path))
    frame = result.to_frame()
    assert list(frame[""]) == rows
    assert frame["recall_at_1"].iloc[-1] == last
    assert result.metrics == result.scores.metrics
    unpacked, folder = result
    assert (unpacked, folder) == (result.scores, result.folder)


def test_a_result_is_a_table_of_a_notebook_in_which_nothing_is_markup(tmp_path: Path) -> None:
    page = RunResult(scores(method="<script>"), RunFolder(tmp_path / "<i>"))._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "<i>" not in page
    assert "12 test images; resnet18, 8-d" in page


def test_a_search_is_a_data_frame_of_its_trials(tmp_path: Path) -> None:
    rows = [
        Row(0, "COMPLETE", {"map_at_r": 0.3}, {"method.alpha": 8}, 2),
        Row(1, "FAIL", {}, {"method.alpha": 9}, 0, reason="out of memory"),
    ]
    found = SearchResult(SearchReport(("map_at_r",), rows, rows[0]), RunFolder(tmp_path))
    frame = found.to_frame()
    assert list(frame["method.alpha"]) == [8, 9]
    assert list(frame["state"]) == ["COMPLETE", "FAIL"]
    assert frame["map_at_r"][0] == 0.3
    assert found.best == tmp_path / "best.yaml"
    assert "winner: " in found._repr_html_()


def test_what_is_no_plan_is_refused_in_the_name_of_its_parameter() -> None:
    for call, parameter in (
        (lambda: dmlray.train(), "experiment"),
        (lambda: dmlray.tune(), "search"),
        (lambda: dmlray.ensemble(), "experiments"),
        (lambda: dmlray.train("s3://bucket/x.yaml"), "experiment"),
        (lambda: dmlray.train(DEMO, out="s3://bucket/x"), "out"),
        (lambda: dmlray.train(DEMO, {"seed": 1}, resume="x"), "resume"),
    ):
        with pytest.raises(ConfigError, match=f"^`{parameter}`: "):
            call()
