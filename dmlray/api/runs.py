"""Train, forecast, evaluate: the functions behind most commands."""

from collections.abc import Iterator
from pathlib import Path

from dmlray.api.ensembles import merge
from dmlray.api.reports import write_run_report
from dmlray.api.run_results import RunResult
from dmlray.api.run_setup import (
    RUNS,
    Command,
    claim,
    open_run,
    prepare,
    run_name,
)
from dmlray.api.teaching import load_teacher, teach
from dmlray.cluster import train as cluster_train
from dmlray.cluster.doctor import Check, examine
from dmlray.cluster.ensemble.merge_actor import merge_members
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.errors import Call, ConfigError
from dmlray.evaluation import clustering
from dmlray.inference.evaluate import evaluate_on, other_data
from dmlray.inference.load import load_model
from dmlray.inference.model_files import is_model
from dmlray.learn.class_split import listed_once, load_dataset
from dmlray.learn.environment import check_images
from dmlray.learn.run import evaluate as evaluate_run
from dmlray.learn.runtime import whole_machine
from dmlray.local_paths import path_of
from dmlray.plans.config_sources import Overrides
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import ExperimentSource, read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, Shown, shown
from dmlray.results.averages import score_members
from dmlray.scores import Scores

_TRAIN = Command("train", "experiment", lambda path: read_experiment(path).experiment)


def train(
    experiment: ExperimentSource | None = None,
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> RunResult:
    """Train one experiment on Ray Train and score it on classes never seen in training.

    Args:
        experiment: A file, its content, or an `Experiment`.
        overrides: Dotted key -> value, above the experiment's own.
        out: New run folder; default runs/NAME.
        resume: Run folder to go on with, in place of all of the above.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """

    def new() -> tuple[Experiment, str]:
        plan = read_experiment(experiment, overrides).experiment
        return plan, run_name(experiment, plan)

    given = {"experiment": experiment, "overrides": overrides, "out": out}
    with open_run(_TRAIN, new, given, resume, display) as run:
        teacher = load_teacher([run.plan], run.folder)
        plan, dataset = prepare(run.plan, run.display)
        with session(address, run.display.log) as cluster:
            cpus, gpu = cluster_train.resources_of(plan, cluster)  # before anything is decoded
            fill_caches(plan, run.display, cpus, gpu)
            run.start(lambda: write_experiment(run.plan_file, plan), dataset, plan.seed)
            teach(teacher, dataset, run.folder, run.display)
            scores = cluster_train.train(plan, run.folder, cluster, run.display)
        write_run_report(run.folder, scores, display=run.display)
        return RunResult(scores, run.folder)


def evaluate(run: str | Path, overrides: Overrides = (), *, display: Shown = "auto") -> RunResult:
    """Score a finished run again from its files, or a model on other data, in this process.

    Scores on other data are written beside the model, as `evaluation_DATA_SPLIT_HASH.json`.

    Args:
        run: Folder of a training, cross-validation, repeat, ensemble or merge; for other data
            also of an exported model, and not of averages.
        overrides: Other data: `data.name`, `data.root` and others that say which images they are,
            and keys of `protocol`.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If there is no such run.
        DmlrayError: If the run is not finished, or its files or images have changed.
    """
    folder = RunFolder(path_of("run", run))
    with shown(display) as entered, listed_once():
        if overrides:
            return RunResult(_on_other_data(folder, overrides, entered), folder)
        if is_model(folder.path):
            problem = "a model has no images of its own"
            raise ConfigError(str(folder), [f"{problem}. Allowed: data.name and data.root beside"])
        return RunResult(_evaluate(folder, entered), folder)


def _on_other_data(folder: RunFolder, overrides: Overrides, display: Display) -> Scores:
    model = load_model(folder.path)
    plan = other_data(model, overrides)
    load_dataset(plan, display.count("decoding images"))
    return evaluate_on(model, plan, folder, display.count("embedding images"))


def _evaluate(folder: RunFolder, display: Display) -> Scores:
    match folder.kind():
        case "experiment":
            plan = read_experiment(folder.plan("experiment")).experiment
            counting = display.count(clustering.COUNTED)
            return evaluate_run(plan, folder, whole_machine(), counting)
        case "merge":
            return merge(resume=folder.path, display=display).scores
        case "ensemble" | "cross_validation" | "repeat" as kind:
            call = Call("evaluate", {"run": str(folder)})
            with claim(folder, call, resumed=True) as opened:
                return _score(read_ensemble(folder.plan(kind)), kind, opened.folder)
        case "benchmark":
            raise ConfigError(str(folder), ["is a benchmark. Allowed: the runs in its cells"])
        case _:
            raise ConfigError(str(folder), [f"is a search. Allowed: a training of {folder.best}"])


def _score(plan: Ensemble, kind: str, folder: RunFolder) -> Scores:
    """Score finished members from their files."""
    check_images(folder, load_dataset(plan.experiment))
    if kind != "ensemble":
        return score_members(plan, folder)
    with session():
        return merge_members(plan, folder)


def doctor(
    address: str | None = None,
    *,
    root: str | Path | None = None,
    out: str | Path | None = None,
) -> Iterator[Check]:
    """Check this machine and every node of the cluster, one thing at a time.

    Args:
        address: Ray cluster to check; default RAY_ADDRESS or a new one.
        root: Images that every node must see.
        out: Run folders that every node must see; default runs.
    """
    images = None if root is None else path_of("root", root)
    return examine(address, images, path_of("out", out or RUNS))
