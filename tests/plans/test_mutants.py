"""Mutated files and overrides: a plan, or an error of dmlray's own, and nothing else."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlray.errors import DmlrayError
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.merge import Merge, read_merge
from dmlray.plans.plan_files import shipped
from dmlray.plans.resolve import read_experiment
from dmlray.reporting.settings_table import settings_table

_ROOT = Path(__file__).parents[2]
_SCALARS = (
    "!!int x", "!!timestamp 2020-99-99", "2020-99-99", "!foo bar", "<<", "=", "&a [*a]", "*b",
    "{? [a] : 1}", "~", "[]", "{}", "[[1]]", "{a: {b: 1}}", ".nan", "-.inf", "1e400", "-1", "0",
    "1e-3", "0o17", "9" * 5000, "9" * 400, "'x", "\\", "\t", "\x00", "\x1b[2J", "\ud800",
    '"\\UFFFFFFFF"', '"\\uD800"', "yes", "a: b", "- 1", "---", "...", "%YAML 9.9", "|", "> ", "? x",
    "[" * 40, "s3://bucket/x", "~nobody-of-this-name/x", "[null]", "[1, x]", "None", "",
)  # fmt: skip
_KEYS = (
    "method", "method.name", "method.x", "data", "data.name", "data.root", "data.transform",
    "backbone", "backbone.weights", "optimizer.lr", "optimizer.milestones", "optimizer",
    "protocol.recall_at", "budget.epochs", "seed", "experiment", "experiment.method", "space",
    "space.optimizer.lr", "space.optimizer.lr.low", "space.seed.choices", "space.x.when.y", "set",
    "set.data", "metric", "folds", "trials", "sampler", "", ".", "a..b", "x" * 300, "\x1b",
)  # fmt: skip


def _texts(pattern: str) -> list[str]:
    return [(_ROOT / name).read_text() for name in shipped() if name.startswith(pattern)]


def _mutated(text: str, rng: random.Random) -> str:
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        here, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        scalar, line = rng.choice(_SCALARS), lines[here]
        location = rng.randrange(len(line) + 1)
        lines[here] = rng.choice(
            (
                line.partition(":")[0] + f": {scalar}",
                line[:location] + scalar + line[location:],
                line[:location] + line[location + 1 :],
                f"{rng.choice(_KEYS)}: {scalar}",
                lines[other],
                " " * rng.randint(0, 3) + line.strip(),
                f"{line}\n{lines[other]}",
            )
        )
    return "\n".join(lines)


def _read_any(path: Path, words: list[str]) -> None:
    settings_table(path, words)


def _all_end_in_a_plan_or_an_error(
    texts: list[str], count: int, path: Path, read: Callable[[Path, list[str]], object]
) -> None:
    rng = random.Random(count)
    ends = {"plan": 0, "error": 0}
    for _ in range(count):
        words = [
            f"{rng.choice(_KEYS)}={rng.choice(_SCALARS)}" for _ in range(rng.choice((0, 0, 1, 2)))
        ]
        text = rng.choice(texts)
        text = _mutated(text, rng) if not words or rng.random() < 0.5 else text
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        problem = ""
        try:
            read(path, words)
            ends["plan"] += 1
        except DmlrayError as error:
            ends["error"] += 1
            problem = str(error)
        except Exception as error:
            pytest.fail(f"{error!r}\n{text}\n{words}")
        assert len(problem) < 20_000
        assert all(line.isprintable() for line in problem.split("\n"))
    assert min(ends.values()) > count // 50, ends


def test_mutated_experiments(tmp_path: Path) -> None:
    texts = _texts("experiments")
    _all_end_in_a_plan_or_an_error(texts, 1500, tmp_path / "f.yaml", _read_any)


def test_mutated_searches(tmp_path: Path) -> None:
    texts = sorted(_texts("searches"), key=len)[:8]
    _all_end_in_a_plan_or_an_error(texts, 300, tmp_path / "f.yaml", _read_any)


def test_mutated_plans_of_runs(tmp_path: Path) -> None:
    path, demo = tmp_path / "plan.yaml", Path("experiments/proxy_anchor_demo.yaml")
    experiment = read_experiment(demo).experiment
    Ensemble(experiment, 2, "settings", (experiment,)).write(path)
    ensemble = path.read_text()
    Merge((Path("a"), Path("b")), (1, 0.5), 3).write(path)
    merge = path.read_text()
    _all_end_in_a_plan_or_an_error([ensemble], 100, path, lambda path, _: read_ensemble(path))
    _all_end_in_a_plan_or_an_error([merge], 100, path, lambda path, _: read_merge(path))
