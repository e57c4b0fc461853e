"""One function per command. Everything that the command line does can be done from Python."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from dmlray import methods
from dmlray.cluster import ensemble as members
from dmlray.cluster import search as searching
from dmlray.cluster import training
from dmlray.cluster.doctor import Check, examine
from dmlray.cluster.merging import Merging, merge_members
from dmlray.cluster.session import session
from dmlray.data import archive, catalogue, download
from dmlray.data.dataset import Dataset
from dmlray.data.verify import Verification, verify
from dmlray.errors import ConfigError, Interrupted
from dmlray.learn import job, merging
from dmlray.learn.device import default_device
from dmlray.learn.preflight import preflight
from dmlray.learn.scores import Scores
from dmlray.learn.training import Place
from dmlray.plans.ensemble import Ensemble, Vary, default_vary, read_ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import Resolved, read_experiment, write_experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.merge import Merge, read_merge
from dmlray.plans.problems import nearest
from dmlray.plans.search import read_search
from dmlray.plans.voices import read_overrides
from dmlray.reporting.display import Display, Silent
from dmlray.reporting.report import write_ensemble

RUNS = Path("runs")
_SIZE = 8  # members of an ensemble, where nobody says how many


def train(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train one experiment on Ray Train and score it on the classes never seen."""
    display = display or Silent()
    if resume:
        folder = _resumed(resume, "experiment", overrides)
        plan = read_experiment(folder.plan("experiment")).experiment
    else:
        plan = read_experiment(_needed(file), overrides).experiment
        folder = RunFolder(out or RUNS / _run_name(_needed(file)))
        folder.must_be_new()
    _prepare(plan, display)
    if not resume:
        folder.claim()
        write_experiment(folder.plan("experiment"), plan)
    with _resumable(f"dmlray train --resume {folder}"), session(address) as cluster:
        return training.train(plan, folder, cluster, display), folder


def tune(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[FrozenTrial, RunFolder]:
    """Search hyperparameters; write the winner as `best.yaml`, a legal experiment."""
    display = display or Silent()
    if resume:
        folder = _resumed(resume, "search", overrides)
        plan = read_search(folder.plan("search"))
    else:
        plan = read_search(_needed(file), overrides)
        folder = RunFolder(out or RUNS / _run_name(_needed(file)))
        folder.must_be_new()
    _prepare(plan.experiment, display, folds=True)
    with _resumable(f"dmlray tune --resume {folder}"), session(address) as cluster:
        resources = searching.resources_of(plan, cluster)
        if not resume:
            folder.claim()
            plan.write(folder.plan("search"))
        best = searching.search(plan, folder, resources, display)
    plan.write_winner(folder.best, best.number, best.params, best.value or 0.0)
    return best, folder


def ensemble(
    experiments: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    *,
    method: str | None = None,
    size: int | None = None,
    vary: Vary | None = None,
    members_per_gpu: int = 1,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train the members that are missing, merge them, and score every ensemble size."""
    display = display or Silent()
    if resume:
        folder = _resumed(resume, "ensemble", ())
        plan = read_ensemble(folder.plan("ensemble"))
        _must_agree(folder, plan, experiments, overrides, method, size, vary)
    else:
        files = experiments or [_experiment_of(method, display)]
        plan = _ensemble_of(files, overrides, method, size, vary)
        folder = RunFolder(out or RUNS / f"{_run_name(files[0])}_x{plan.size}")
        folder.must_be_new()
    for setting in (plan.experiment, *plan.others):
        _prepare(setting, display)
    if not resume:
        folder.claim()
        plan.write(folder.plan("ensemble"))
    with _resumable(f"dmlray ensemble --resume {folder}"), session(address) as cluster:
        merger = Merging(plan, folder, cluster)
        members.train_members(plan, folder, cluster, members_per_gpu, display, merger.over)
        return merger.finish(), folder


def merge(
    runs: Sequence[Path] = (),
    *,
    weights: Sequence[float] = (),
    pca: int | None = None,
    whiten: bool = False,
    greedy: bool = False,
    out: Path | None = None,
    resume: Path | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Merge finished runs of any methods that were scored on the same images, in this process."""
    display = display or Silent()
    if resume:
        folder = _resumed(resume, "merge", [str(run) for run in runs])
        plan = read_merge(folder.plan("merge"))
    else:
        plan = Merge(tuple(runs), tuple(weights), pca, whiten, greedy)
        name = "+".join(run.name for run in plan.runs[:3])
        folder = RunFolder(out or RUNS / f"merge_{name}")
        folder.must_be_new()
    merging.check(plan)
    if not resume:
        folder.claim()
        plan.write(folder.plan("merge"))
    scores = merging.merge(plan, folder, Place(default_device()), display.counting)
    write_ensemble(folder, scores)
    return scores, folder


def evaluate(run: Path) -> Scores:
    """Score a finished run again from its files, in this process."""
    folder = RunFolder(run)
    match folder.kind():
        case "experiment":
            plan = read_experiment(folder.plan("experiment")).experiment
            return job.evaluate(plan, folder, Place(default_device()))
        case "ensemble":
            with session() as cluster:
                return merge_members(read_ensemble(folder.plan("ensemble")), folder, cluster)
        case "merge":
            return merge(resume=run)[0]
        case _:
            raise ConfigError(str(run), [f"is a search. Allowed: dmlray train {folder.best}"])


@dataclass(frozen=True)
class Demo:
    """What `dmlray demo` found, stage by stage."""

    trained: Scores
    merged: Scores
    folder: RunFolder


def demo(*, out: Path | None = None, display: Display | None = None) -> Demo:
    """Search, train the winner and merge an ensemble on the demo set; goes on where it was."""
    display = display or Silent()
    root = out or RUNS / "demo"
    with _resumable(f"dmlray demo --out {root}"), session():
        search = root / "search"
        display.say("1/3  search: proxy_anchor, class-disjoint folds, Optuna and ASHA on Ray Tune")
        _, found = tune(Path("searches/proxy_anchor_demo.yaml"), **_go_on(search), display=display)
        display.say("2/3  train: the winner, on all training classes, on Ray Train")
        trained, _ = train(found.best, **_go_on(root / "winner"), display=display)
        display.say("3/3  ensemble: DREML, one actor per core, merged")
        merged, _ = ensemble(
            [Path("experiments/dreml_demo.yaml")],
            size=8,
            **_go_on(root / "dreml", "budget.epochs=2"),
            display=display,
        )
    return Demo(trained, merged, RunFolder(root))


def show(file: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Each value of an experiment, and who said it."""
    return read_experiment(file, overrides)


def doctor(
    address: str | None = None, *, root: Path | None = None, out: Path | None = None
) -> Iterator[Check]:
    """Check this machine and every node of the cluster, one thing at a time."""
    return examine(address, root, out or RUNS)


def prepare_data(
    name: str,
    root: Path | None,
    sources: Sequence[Path] = (),
    *,
    fetched: bool = False,
    display: Display | None = None,
) -> Dataset:
    """Make or find a data set, from archives in `sources` or from its public address if `fetched`.

    Raises:
        DataError: If an archive is damaged, the address dead, or the images are not all there.
    """
    display = display or Silent()
    if (sources or fetched) and root is None:
        raise ConfigError("--root", ["is missing. Allowed: the folder to unpack into"])
    if root is not None:
        if fetched:
            source = download.known(name)
            progress = display.counting(f"fetching {source.file}, MB", 1 << 20)
            sources = [*sources, download.fetch(source, root, progress)]
        for file in sources:
            archive.bring(file, root, display.counting(f"unpacking {file.name}"))
    return catalogue.load(name, root)


def verify_data(name: str, root: Path | None, display: Display | None = None) -> Verification:
    """Check a data set's layout, counts, order of classes and every file."""
    display = display or Silent()
    return verify(name, root, display.counting("opening images"))


def _needed(file: Path | None) -> Path:
    if file is None:
        raise ConfigError("command line", ["names no file. Allowed: a YAML file, or --resume RUN"])
    return file


def _resumed(run: Path, kind: str, overrides: Sequence[str]) -> RunFolder:
    folder = RunFolder(run)
    if overrides:
        raise ConfigError("--resume", [f"goes on with the plan in {run}; it takes no overrides"])
    if folder.kind() != kind:
        raise ConfigError(str(run), [f"is no {kind}: it holds {folder.kind()}.yaml"])
    return folder


def _go_on(path: Path, *overrides: str) -> dict[str, Any]:
    """Options of a stage: resume what was begun, else begin with `overrides`."""
    begun = path.exists() and any(path.iterdir())
    return {"resume": path} if begun else {"out": path, "overrides": overrides}


def _run_name(file: Path) -> str:
    return f"{file.parent.name}_best" if file.stem == "best" else file.stem


def _experiment_of(method: str | None, display: Display) -> Path:
    if method is None:
        raise ConfigError("command line", ["names no --method and no --experiment"])
    if method not in methods.names():
        raise ConfigError(
            "--method", [f"unknown method {method!r}.{nearest(method, methods.names())}"]
        )
    file = Path("experiments") / f"{method}_demo.yaml"
    display.say(f"no --experiment given: taking {file}")
    return file


def _ensemble_of(
    files: Sequence[Path],
    overrides: Sequence[str],
    method: str | None,
    size: int | None,
    vary: Vary | None,
) -> Ensemble:
    words = [*([f"method.name={method}"] if method else []), *overrides]
    first, *others = [read_experiment(file, words).experiment for file in files]
    if size is None:
        size = len(files) if others else _SIZE
    return Ensemble(
        first, size, vary or ("settings" if others else default_vary(first)), tuple(others)
    )


def _must_agree(
    folder: RunFolder,
    plan: Ensemble,
    experiments: Sequence[Path],
    overrides: Sequence[str],
    method: str | None,
    size: int | None,
    vary: Vary | None,
) -> None:
    """What is said again when an ensemble goes on must be what it was begun with."""
    size, vary = plan.size if size is None else size, vary or plan.vary
    if experiments:
        asked = _ensemble_of(experiments, overrides, method, size, vary)
    else:
        words = [*([f"method.name={method}"] if method else []), *overrides]
        said = read_ensemble(folder.plan("ensemble"), [read_overrides(words)])
        asked = replace(said, size=size, vary=vary)
    strange = plan.differences(asked)
    if strange:
        allowed = "Allowed: the settings that it was begun with, or a new folder (--out)"
        raise ConfigError(str(folder), [f"was begun with {', '.join(strange)}. {allowed}"])


def _prepare(plan: Experiment, display: Display, folds: bool = False) -> None:
    """Check the plan and fill the image cache, in the driver, before anything runs."""
    preflight(plan, folds, display.counting("decoding images"))


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """Tell an interruption how to go on; the outermost command is the one to type."""
    try:
        yield
    except Interrupted as interruption:
        interruption.resume = command
        raise
