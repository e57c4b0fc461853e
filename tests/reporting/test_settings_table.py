"""Every plan explains its settings: value, origin, meaning, legal range."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.config_sources import flatten
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import read_search
from dmlray.reporting.settings_table import Setting, SettingsTable, settings_table

DEMO = "experiments/proxy_anchor_demo.yaml"


def row(table: SettingsTable, key: str) -> Setting:
    (found,) = [row for row in table.rows if row.key == key]
    return found


def test_an_experiment_shows_each_value_with_a_short_origin_and_its_long_source_once() -> None:
    table = settings_table("experiments/proxy_anchor_cub.yaml", {"optimizer.lr": 0.01})
    assert row(table, "optimizer.lr").value == "0.01"
    assert row(table, "optimizer.lr").origin == "overrides"
    assert row(table, "data.batch_size").origin == "line 4"
    assert row(table, "data.transform.size").origin == "published"
    assert row(table, "data.root") == Setting(
        "data.root", "null", "default", "folder or file that lists the images",
        "a path or null",
    )  # fmt: skip
    assert "Proxy-Anchor-CVPR2020" in table.sources["published"]
    assert any("recall_at_1 69.1 %" in note for note in table.notes)


def test_a_search_shows_its_settings_ranges_and_experiment_with_their_origins() -> None:
    table = settings_table("searches/drml_cub.yaml", ["seed=4", "optimizer.lr=0.0002"])
    assert [row(table, key).origin for key in ("trials", "gpus")] == ["line 5", "default"]
    assert row(table, "seed").value == "4"
    assert row(table, "experiment.seed").value == "0"
    lr = row(table, "space.optimizer.lr")
    assert (lr.value, lr.origin) == ("1e-05 to 0.0003, log", "the method's SPACE")
    assert lr.allowed == "a number in (0, 1]"
    assert row(table, "optimizer.lr").origin == "command line"
    assert row(table, "method.name").origin == "experiment line 2"
    assert table.sources["experiment line"] == "experiments/drml_cub.yaml"


def test_a_condition_and_a_fixed_setting_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        f"experiment: {DEMO}\nuse_method_space: false\nspace:\n"
        "  optimizer.schedule: {choices: [linear, cosine]}\n"
        "  method.alpha: {low: 8, high: 64, log: true, when: {optimizer.schedule: linear}}\n"
        "  method.dim: 64\n"
    )
    table = settings_table(file)
    assert row(table, "space.optimizer.schedule").value == "one of linear, cosine"
    alpha = row(table, "space.method.alpha")
    assert alpha.value == "8 to 64, log, when optimizer.schedule is linear"
    assert (alpha.origin, row(table, "method.dim").origin) == ("line 5", "line 6")


def test_an_ensemble_shows_its_experiment_and_in_what_others_differ(tmp_path: Path) -> None:
    first, other = (read_experiment(DEMO, {"method.dim": dim}).experiment for dim in (128, 64))
    file = tmp_path / "ensemble.yaml"
    ensemble = Ensemble(first, 4, "settings", (other,))
    ensemble.write(file)
    for plan in (file, ensemble):
        table = settings_table(plan, {"budget.epochs": 3})
        assert (row(table, "size").value, row(table, "vary").value) == ("4", "settings")
        assert row(table, "method.dim").value == "128"
        assert row(table, "budget.epochs").value == "3"
        assert [r.key for r in table.rows if r.key.startswith("others.")] == ["others.1.method.dim"]


def test_plans_and_mappings_are_shown_as_files_are() -> None:
    plans: tuple[tuple[str, Any], ...] = (
        (DEMO, read_experiment(DEMO).experiment),
        ("searches/proxy_anchor_demo.yaml", read_search("searches/proxy_anchor_demo.yaml")),
    )
    for file, plan in plans:
        values = {row.key: row.value for row in settings_table(file).rows}
        for same in (plan, plan.document()):
            ours = {row.key: row.value for row in settings_table(same).rows}
            changed = {key for key in values if ours[key] != values[key]}
            # a plan has its metric and folds written out
            assert changed <= {"metric", "folds", "use_method_space"}


@pytest.mark.parametrize("given", [{"method": {"name": "proxy"}}, {"method.name": "proxy"}])
def test_a_mistake_in_a_mapping_is_named_after_the_parameter(given: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^`experiment`: .*method.name: unknown method 'proxy'"):
        read_experiment(given)
    with pytest.raises(ConfigError, match=r"`overrides`  optimizer.lr: 2 is not allowed. Allowed"):
        read_experiment(DEMO, {"optimizer.lr": 2})
    with pytest.raises(ConfigError, match=r"^`experiment`: 7 is not allowed. Allowed: a YAML"):
        read_experiment(7)  # type: ignore[arg-type]


def test_a_path_in_overrides_is_a_path(tmp_path: Path) -> None:
    plan = read_experiment(DEMO, {"data.name": "folder", "data.root": tmp_path}).experiment
    assert plan.data.root == tmp_path
    assert flatten(plan.document())["data.root"] == str(tmp_path)
