"""The function behind `dmlray zero-shot`: which frozen backbone is the best on some images."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from dmlray.api.run_results import ZeroShotResult
from dmlray.api.run_setup import RUNS, claim, prepare, run_name
from dmlray.backbones.trunk import Pooling
from dmlray.errors import Call, ConfigError
from dmlray.learn.runtime import whole_machine
from dmlray.local_paths import path_of
from dmlray.plans.config_sources import Overrides
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import ExperimentSource, override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, Shown, shown
from dmlray.results.backbone_comparison import BackboneComparison, read_comparison
from dmlray.results.zero_shot import check_same, empty_comparison, score_backbone

_METHOD = "proxy_anchor"  # of an experiment that is not given; nothing of it is used


def zero_shot(
    experiment: ExperimentSource | None = None,
    overrides: Overrides = (),
    *,
    backbones: Sequence[str],
    out: str | Path | None = None,
    display: Shown = "auto",
) -> ZeroShotResult:
    """Score frozen backbones on validation and test classes, in this process; train nothing.

    The same call goes on where it was interrupted, and adds backbones to what is there.

    Args:
        experiment: A file, its content, or an `Experiment`: data, crops and protocol.
        overrides: Dotted key -> value, above the experiment's own.
        backbones: Names, or NAME:POOLING where the pooling is not the experiment's.
        out: Run folder; default runs/NAME_zero_shot.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the folder holds something else.
    """
    source = {"method": {"name": _METHOD}} if experiment is None else experiment
    plan = read_experiment(source, overrides).experiment
    plans = _plans(plan, backbones)
    name = plan.data.name if experiment is None else run_name(experiment, plan)
    folder = RunFolder(path_of("out", out or RUNS / f"{name}_zero_shot"))
    started = folder.is_started()
    before = read_comparison(folder.backbones) if started else None
    with shown(display) as entered, claim(folder, _call(folder), resumed=started) as run:
        plans = {name: prepare(each, entered)[0] for name, each in plans.items()}
        comparison = empty_comparison(next(iter(plans.values())))
        _check_images(folder, before, comparison)
        for name, each in plans.items():
            check_same(each, run.folder.backbone(name))
        for name in before.by_run() if before else ():
            check_same(next(iter(plans.values())), run.folder.backbone(name), backbone=False)
        run.start(lambda: comparison.write(run.folder.backbones))
        return ZeroShotResult(_score(plans, before or comparison, run.folder, entered), folder)


def _call(folder: RunFolder) -> Call:
    return Call("zero_shot", {"out": str(folder)})


def _score(
    plans: Mapping[str, Experiment],
    comparison: BackboneComparison,
    folder: RunFolder,
    display: Display,
) -> BackboneComparison:
    """Score the backbones that are missing; the file is written anew with each."""
    count = display.count("backbones scored")
    for number, (name, plan) in enumerate(plans.items()):
        count(number, len(plans))
        if name not in comparison.by_run() or not folder.backbone(name).scores.exists():
            row = score_backbone(plan, folder.backbone(name), whole_machine())
            comparison = comparison.with_row(row)
            comparison.write(folder.backbones)
    count(len(plans), len(plans))
    return comparison


def _plans(plan: Experiment, backbones: Sequence[str]) -> dict[str, Experiment]:
    """The plan of each backbone, by the name of its folder."""
    if isinstance(backbones, str) or not backbones:
        raise ConfigError("`backbones`", ["names none. Allowed: a list of NAME or NAME:POOLING"])
    choice = {} if plan.protocol.selection != "best_on_test" else {"protocol.selection": "last"}
    plans: dict[str, Experiment] = {}
    for text in backbones:
        name, colon, pooling = text.rpartition(":")
        if not colon or pooling not in get_args(Pooling):
            name, pooling = text, plan.backbone.pooling
        key = re.sub(r"[^\w.-]+", "_", f"{name}_{pooling}")
        if key in plans or not name:
            problem = "is named twice" if name else "has no name"
            raise ConfigError("`backbones`", [f"{text} {problem}. Allowed: different backbones"])
        changes = {"backbone.name": name, "backbone.pooling": pooling, "budget.epochs": 0, **choice}
        plans[key] = override(plan, "`backbones`", changes)
    return plans


def _check_images(
    folder: RunFolder, before: BackboneComparison | None, now: BackboneComparison
) -> None:
    if before and before.dataset_fingerprint != now.dataset_fingerprint:
        problem = f"compares on images {before.dataset_fingerprint}, these are"
        allowed = "Allowed: the same images, or a new folder (`out`)"
        raise ConfigError(str(folder), [f"{problem} {now.dataset_fingerprint}. {allowed}"])
