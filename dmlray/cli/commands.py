"""Words -> one api call -> words."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dmlray import __version__
from dmlray.cli.data import data
from dmlray.cli.look import doctor, methods, plan, show
from dmlray.errors import DmlrayError, Interrupted, RunError
from dmlray.interrupts import interruptible

if TYPE_CHECKING:
    from dmlray.learn.scores import Scores
    from dmlray.plans.folder import RunFolder

PATH = click.Path(path_type=Path)
SIZES = click.IntRange(min=1)
MEMBERS = click.option("--members-per-gpu", type=SIZES, default=1, show_default=True)


class Main(click.Group):
    """Turns errors and signals into one sentence and an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with interruptible(command=Path(__file__).parent):
            try:
                return super().main(*args, **kwargs)
            except Interrupted as error:
                _interrupted(error)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except DmlrayError as error:
            click.echo(str(error), err=True)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT) from None


def _interrupted(error: Interrupted) -> NoReturn:
    with suppress(OSError):  # a closed terminal
        resume = error.resume
        click.echo(f"interrupted. Go on with: {resume}" if resume else "interrupted", err=True)
    sys.exit(error.exit_status)


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

    file, overrides = _split(words)
    with _display() as display:
        scores, folder = api.train(file, overrides, display=display, **options)
    _table(_rows(scores, "trained"), scores)
    _where(folder)


@main.command()
@click.argument("words", nargs=-1, metavar="[SEARCH] [KEY=VALUE]...")
@click.option("--trials", type=SIZES, help="Trials in all.")
@_run_options
def tune(words: Sequence[str], trials: int | None, **options: Any) -> None:
    """Search hyperparameters over class-disjoint folds, as the file SEARCH says."""
    from dmlray import api

    file, overrides = _split(words)
    if trials:
        overrides = [*overrides, f"trials={trials}"]
    with _display() as display:
        findings, folder = api.tune(file, overrides, display=display, **options)
    for line in findings.lines():
        click.echo(line)
    click.echo(f"train it with:  dmlray train {folder.typed}/{folder.best.name}")
    if folder.repeat.scores.exists():
        from dmlray.learn.scores import read_scores

        _averages(read_scores(folder.repeat.scores))
    _where(folder)
    if findings.failure:
        raise RunError(f"{findings.failure}. See {folder}/trials.json")


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

    file, overrides = _split(words)
    with _display() as display:
        scores, folder = api.cross_validate(file, overrides, display=display, **options)
    _averages(scores)
    _where(folder)


@main.command()
@click.argument("words", nargs=-1, metavar="[EXPERIMENT] [KEY=VALUE]...")
@click.option("--repeats", "size", type=int, default=5, show_default=True, help="Trainings.")
@MEMBERS
@_run_options
def repeat(words: Sequence[str], **options: Any) -> None:
    """Train one experiment several times with new seeds; average the scores on the test classes."""
    from dmlray import api

    file, overrides = _split(words)
    with _display() as display:
        scores, folder = api.repeat(file, overrides, display=display, **options)
    _averages(scores)
    _where(folder)


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
    _table([*zero, *_curve_rows(scores)], scores)
    _where(folder)


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
    _table(_curve_rows(scores) if scores.curve else [("merged", scores.metrics)], scores)
    _where(folder)


@main.command()
@click.option("--out", type=PATH, help="Run folder; default runs/demo. A second call goes on.")
def demo(out: Path | None) -> None:
    """The whole path in a few minutes: search, train, ensemble, look."""
    from dmlray import api

    with _display() as display:
        result = api.demo(out=out, display=display)
    merged = result.merged
    rows = _rows(result.trained, "tuned proxy_anchor")
    rows += [(f"dreml, {name}", metrics) for name, metrics in _curve_rows(merged)]
    _table(rows, result.trained)
    _where(result.folder)


@main.command()
@click.argument("run", type=PATH)
def evaluate(run: Path) -> None:
    """Score the finished run in folder RUN again."""
    from dmlray import api

    with _display() as display:
        scores = api.evaluate(run, display)
    if scores.parts:
        _averages(scores)
    else:
        _table(_rows(scores, scores.method), scores)


for command in (data, show, plan, methods, doctor):
    main.add_command(command)


def _split(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file, if the first word is one, and the overrides."""
    if words and "=" not in words[0]:
        return Path(words[0]), list(words[1:])
    return None, list(words)


def _display() -> Any:
    from dmlray.reporting.display import Display

    return Display()


def _rows(scores: Scores, name: str) -> list[tuple[str, dict[str, float]]]:
    zero = [("zero-shot (no training)", scores.zero_shot)] if scores.zero_shot else []
    return [*zero, (name, scores.metrics)]


def _curve_rows(scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """The ensemble at 1, 2, 4, 8, ... members, and at its full size."""
    full = len(scores.curve)
    sizes = [2**power for power in range(full.bit_length()) if 2**power < full]
    named = [(f"{n} merged" if n > 1 else "one member", scores.curve[n - 1]) for n in sizes]
    return [*named, (f"{full} merged", scores.metrics)]


def _averages(scores: Scores) -> None:
    from dmlray.reporting.tables import average_rows, held_out_lines

    _table(average_rows(scores), scores)
    for line in held_out_lines(scores):
        click.echo(line)


def _table(rows: list[tuple[str, dict[str, float]]], scores: Scores) -> None:
    from dmlray.reporting.tables import print_table

    print_table(rows, scores)


def _where(folder: RunFolder) -> None:
    click.echo(f"run folder:   {folder}")
    click.echo(f"TensorBoard:  tensorboard --logdir {folder.typed}")
