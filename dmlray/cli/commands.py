"""Words -> one api call -> words."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from dmlray import __version__
from dmlray.cli.data import data
from dmlray.cli.info import doctor, methods, plan, show
from dmlray.cli.init import init
from dmlray.cli.local_path import PATH, split_words
from dmlray.cli.models import embed, export, index, query
from dmlray.cli.output import (
    echo,
    echo_error,
    echo_usage_error,
    echo_wrapped,
    exit_interrupted,
    guarded_output,
)
from dmlray.cli.parameters import as_command, typed, with_options
from dmlray.cli.reports import compare, report
from dmlray.cli.scores import curve_rows, print_averages, print_folder, print_scores, stage_rows
from dmlray.cli.zero_shot import zero_shot
from dmlray.errors import DmlrayError, Interrupted, RunError
from dmlray.interrupts import interruptible

SIZES = click.IntRange(min=1)
_COLLECT_AFTER = 100_000  # new objects; the default of 700 takes a fifth of the time of imports
SECTIONS = {  # of `dmlray --help`
    "Start": ("demo", "init", "data", "doctor", "zero-shot"),
    "Train": ("train", "cv", "repeat", "evaluate"),
    "Search": ("tune", "benchmark", "plan"),
    "Ensembles": ("ensemble", "merge"),
    "Look": ("show", "methods", "report", "compare"),
    "Use": ("export", "embed", "query", "index"),
}
MEMBERS = click.option("--members-per-gpu", type=SIZES, default=1, show_default=True)


class Main(click.Group):
    """Turns errors and signals into one sentence and an exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit with its status; signals interrupt it cleanly."""
        gc.set_threshold(_COLLECT_AFTER)
        with interruptible(command=Path(__file__).parent):
            try:
                with guarded_output():
                    sys.exit(self._status(*args, **extra))
            except Interrupted as error:
                exit_interrupted(error, as_command(self))
            except OSError as error:
                from dmlray.atomic_files import storage_error

                failure = storage_error(error)
                if failure is None:
                    raise
                echo_error(str(failure))
                sys.exit(failure.exit_status)

    def _status(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False  # click would print names as they are
        try:
            return super().main(*args, **extra)
        except click.ClickException as error:
            echo_usage_error(error)
            return error.exit_code
        except click.Abort:
            raise Interrupted(signal.SIGINT) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for section, names in SECTIONS.items():
            known = [name for name in names if name in self.commands]
            rows = [(name, self.commands[name].get_short_help_str(limit)) for name in known]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def invoke(self, context: click.Context) -> Any:
        """Run a command; its errors become messages that name options."""
        try:
            return super().invoke(context)
        except DmlrayError as error:
            text = error.written(as_command(self))
            echo_error(with_options(text, self, context.invoked_subcommand))
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT) from None


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that trains takes."""
    for option in (
        click.option("--out", type=PATH, help="Run folder; default runs/NAME."),
        click.option("--resume", type=PATH, metavar="RUN", help="Go on in this run folder."),
        click.option("--address", help="Ray cluster to join; default RAY_ADDRESS or a new one."),
    ):
        command = option(command)
    return command


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Search, train and ensemble deep metric learners on Ray.

    Any setting can be changed with KEY=VALUE, for instance data.name=folder data.root=photos.
    """


@main.command()
@click.argument("words", nargs=-1, metavar="[EXPERIMENT] [KEY=VALUE]...")
@_run_options
def train(words: Sequence[str], **options: Any) -> None:
    """Train one experiment and score it on classes never seen."""
    from dmlray import api

    file, overrides = split_words(words)
    with _display() as display:
        scores, folder = api.train(file, overrides, display=display, **options)
    print_scores(stage_rows(scores, "trained"), scores)
    print_folder(folder)


@main.command()
@click.argument("words", nargs=-1, metavar="[SEARCH] [KEY=VALUE]...")
@click.option("--trials", type=SIZES, help="Trials in all, also with --resume.")
@_run_options
def tune(words: Sequence[str], trials: int | None, **options: Any) -> None:
    """Search hyperparameters over class-disjoint folds, as the file SEARCH describes."""
    from dmlray import api

    file, overrides = split_words(words)
    if trials:
        overrides = [*overrides, f"trials={trials}"]
    with _display() as display:
        report, folder = api.tune(file, overrides, display=display, **options)
    for line in report.lines():
        echo_wrapped(line)
    echo(f"train it with:  dmlray train {typed(str(folder))}/{folder.best.name}")
    echo(f"report:  {folder}/{folder.report.name}")
    if folder.repeat.scores.exists():
        from dmlray.scores import read_scores

        print_averages(read_scores(folder.repeat.scores))
    print_folder(folder)
    if report.failure:
        raise RunError(f"{report.failure}. See {folder}/trials.json")


@main.command()
@click.argument("words", nargs=-1, metavar="[FILE] [KEY=VALUE]...")
@click.option("--start-from", type=PATH, metavar="RESULTS", help="Take finished cells from there.")
@_run_options
def benchmark(words: Sequence[str], **options: Any) -> None:
    """Search and repeat each method on each data set of the benchmark FILE; write a leaderboard."""
    from dmlray import api

    file, overrides = split_words(words)
    with _display() as display:
        found = api.benchmark(file, overrides, display=display, **options)
    for line in found.lines():
        echo(line)
    echo(f"leaderboard:  {found.folder}/{found.folder.leaderboard('html').name}")
    echo(f"run folder:   {found.folder}")


@main.command()
@click.argument("words", nargs=-1, metavar="[EXPERIMENT] [KEY=VALUE]...")
@MEMBERS
@_run_options
def cv(words: Sequence[str], **options: Any) -> None:
    """Cross-validate one experiment: train its folds side by side, each without its own classes.

    The best epoch of each fold is scored on the test classes: separated (mean over the folds) and
    concatenated (their embeddings side by side).
    """
    from dmlray import api

    file, overrides = split_words(words)
    with _display() as display:
        scores, folder = api.cross_validate(file, overrides, display=display, **options)
    print_averages(scores)
    print_folder(folder)


@main.command()
@click.argument("words", nargs=-1, metavar="[EXPERIMENT] [KEY=VALUE]...")
@click.option("--repeats", "size", type=int, help="Trainings; default 5.")
@MEMBERS
@_run_options
def repeat(words: Sequence[str], **options: Any) -> None:
    """Train one experiment several times with new seeds; average the scores on the test classes."""
    from dmlray import api

    file, overrides = split_words(words)
    with _display() as display:
        scores, folder = api.repeat(file, overrides, display=display, **options)
    print_averages(scores)
    print_folder(folder)


@main.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--method", help="Method, with its experiments/METHOD_demo.yaml.")
@click.option(
    "--experiment",
    "experiments",
    type=PATH,
    multiple=True,
    help="Experiment of every member; several give the members other settings in turn.",
)
@click.option("--ensemble-size", "size", type=int, help="Members; default 8, or one a setting.")
@click.option("--vary", help="What differs: meta_classes, seed, fold or settings.")
@MEMBERS
@_run_options
def ensemble(overrides: Sequence[str], **options: Any) -> None:
    """Train many learners side by side and merge their embeddings."""
    from dmlray import api

    with _display() as display:
        scores, folder = api.ensemble(overrides=overrides, display=display, **options)
    zero = [("zero-shot (no training)", scores.zero_shot)] if scores.zero_shot else []
    print_scores([*zero, *curve_rows(scores)], scores)
    print_folder(folder)


@main.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...")
@click.option("--weights", help="Factor of each RUN's cosines, such as 1,0.5; default 1.")
@click.option("--pca", type=int, help="Keep so many dimensions, as the training classes say.")
@click.option("--whiten", is_flag=True, help="Give each dimension the same variance.")
@click.option("--greedy", is_flag=True, help="Take members while they help on validation classes.")
@click.option("--out", type=PATH, help="Run folder; default runs/merge_NAMES.")
@click.option("--resume", type=PATH, metavar="RUN", help="Go on in this run folder.")
def merge(runs: Sequence[Path], weights: str | None, **options: Any) -> None:
    """Merge finished runs, also of different methods, and score them as one.

    A RUN is a training or an ensemble; all must have been scored on the same test images.
    """
    from dmlray import api
    from dmlray.plans.merge import read_weights

    with _display() as display:
        scores, folder = api.merge(runs, weights=read_weights(weights), display=display, **options)
    print_scores(curve_rows(scores) if scores.curve else [("merged", scores.metrics)], scores)
    print_folder(folder)


@main.command()
@click.option("--out", type=PATH, help="Run folder; default runs/demo. A second call resumes it.")
def demo(out: Path | None) -> None:
    """Search, train, merge an ensemble and query it, on drawn icons: 90 seconds on two cores."""
    from dmlray import api

    with _display() as display:
        result = api.demo(out=out, display=display)
    print_scores([(name, dict(metrics)) for name, metrics in result.rows], result.scores)
    print_folder(result.folder)
    echo(f"report:       {_shown(result.report)}")
    echo(f"model:        {_shown(result.model)}")
    echo_wrapped(f"queries:      {_shown(result.queries)}    (open it in a browser)")
    echo_wrapped("your own images:  dmlray init FOLDER    (a sub-folder per class, or a CSV file)")


@main.command()
@click.argument("run", type=PATH, metavar="MODEL|RUN")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def evaluate(run: Path, overrides: Sequence[str]) -> None:
    """Score the finished run in folder RUN again, or a MODEL or RUN on other data.

    data.name=folder data.root=photos scores the test classes there, with data.split=all all.
    """
    from dmlray import api

    with _display() as display:
        scores, _ = api.evaluate(run, overrides, display=display)
    if scores.parts:
        print_averages(scores)
    else:
        print_scores(stage_rows(scores, scores.method), scores)


for command in (
    init,
    data,
    show,
    plan,
    methods,
    doctor,
    zero_shot,
    compare,
    report,
    export,
    embed,
    query,
    index,
):
    main.add_command(command)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _display() -> Any:
    from dmlray.reporting.progress import Display

    return Display()
