"""The real optuna-dashboard opens study.db; it is called in this process, without a network."""

from pathlib import Path

import pytest

from dmlray.cluster.search.study_storage import NAME
from dmlray.plans.run_folder import RunFolder
from tests.reporting.test_search_page import run_search


def test_the_dashboard_shows_the_study(tmp_path: Path) -> None:
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    from werkzeug.test import Client

    run_search(RunFolder(tmp_path / "run"), 6)
    client = Client(optuna_dashboard.wsgi(f"sqlite:///{tmp_path}/run/study.db"))
    (study,) = client.get("/api/studies").json["study_summaries"]
    assert study["study_name"] == NAME
    assert study["directions"] == ["maximize"]
    detail = client.get(f"/api/studies/{study['study_id']}").json
    states = [trial["state"] for trial in detail["trials"]]
    assert states == ["Complete"] * 3 + ["Pruned", "Complete", "Fail"]
    assert {row["name"] for row in detail["intersection_search_space"]} <= {
        "method.margin", "method.dim", "optimizer.lr"
    }  # fmt: skip
    curve = detail["trials"][0]["intermediate_values"]
    assert [point["step"] for point in curve] == [1, 2, 3]
    assert client.get("/dashboard").status_code in (200, 302)
