"""Interrupt, damage and contest runs at random; all must end as an undisturbed one does.

    python benchmarks/faults.py [--minutes 30] [--seed 0]

Trainings, searches and ensembles of a tiny network on 48 generated images, one after another. Each
is stopped at random moments (SIGKILL, SIGTERM, SIGINT, SIGHUP), meets a second process on its run
folder, a file that is cut or overwritten while it is stopped, and, where a tmpfs can be mounted
(root), a full disk; then it is resumed until it ends. Ends with status 1 at the first traceback,
hang, wrong number of trials or members, epoch that is logged twice, or score that differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EPOCHS, TRIALS, MEMBERS = 6, 5, 4
LIMIT = 300.0  # seconds for one command, beyond which it hangs
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DISK = "size=24m"  # of the small file system
EXPERIMENT = f"""
method: {{name: proxy_anchor, dim: 8}}
data: {{name: folder, root: images, batch_size: 8, transform: {{size: 32, eval_resize: 32}}}}
backbone: {{name: test_byobnet, weights: none}}
budget: {{epochs: {EPOCHS}}}
protocol: {{selection: last, recall_at: [1, 2]}}
"""
SEARCH = f"""
experiment: small.yaml
set: {{protocol.selection: validation, protocol.folds: 2, budget.epochs: 3}}
space: {{optimizer.lr: {{low: 1.0e-5, high: 1.0e-2, log: true}}}}
use_method_space: false
trials: {TRIALS}
"""
COMMANDS = {
    "train": ["train", "small.yaml"],
    "tune": ["tune", "search.yaml"],
    "ensemble": ["ensemble", "--experiment", "small.yaml", "--ensemble-size", str(MEMBERS),
                 "--vary", "seed"],
}  # fmt: skip


class WrongResultError(Exception):
    """A run ended otherwise than it should."""


@dataclass
class Tally:
    """What was done to the runs."""

    runs: int = 0
    events: dict[str, int] = field(default_factory=dict)

    def add(self, event: str) -> None:
        self.events[event] = self.events.get(event, 0) + 1


def main() -> int:
    """Disturb runs until the time is over; print what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, tally, started = random.Random(options.seed), Tally(), time.monotonic()
    with scratch() as disk:
        expected = {kind: results(kind, undisturbed(kind)) for kind in COMMANDS}
        while time.monotonic() - started < 60 * options.minutes:
            kind = dice.choice(list(COMMANDS))
            try:
                disturbed(kind, dice, tally, disk, expected[kind])
            except WrongResultError as problem:
                print(f"{kind}, run {tally.runs}: {problem}")
                return 1
            print(f"{time.monotonic() - started:6.0f} s  {kind:8} as undisturbed", flush=True)
    listed = ", ".join(f"{count} {event}" for event, count in sorted(tally.events.items()))
    print(f"{tally.runs} runs; {listed}")
    print(f"RATIO faults_wrong_runs 0 of {tally.runs}")
    return 0


@contextmanager
def scratch() -> Iterator[Path | None]:
    """Work in a folder with images and plans; yield a small file system, None without one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["DMLRAY_CACHE"] = f"{folder}/cache"
        Path("small.yaml").write_text(EXPERIMENT)
        Path("search.yaml").write_text(SEARCH)
        draw(Path("images"))
        disk = Path(folder, "disk")
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield disk if mounted else None
        finally:
            os.chdir(before)
            if mounted:
                subprocess.run(["umount", str(disk)], check=False)


def draw(root: Path) -> None:
    """Eight classes of six noisy images."""
    dice = np.random.default_rng(3)
    for label in range(8):
        colours = dice.integers(0, 256, (5, 5, 3))
        (root / f"class{label}").mkdir(parents=True)
        for number in range(6):
            noisy = np.clip(colours + dice.normal(0, 40, colours.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((40, 40)).save(root / f"class{label}" / f"{number}.png")


def undisturbed(kind: str) -> Path:
    """Run the command to its end."""
    run = Path("runs", f"{kind}_undisturbed")
    status, text = finish(start([*COMMANDS[kind], "--out", str(run)]))
    if status:
        raise SystemExit(f"{kind}: status {status} without any disturbance: {text}")
    return run


def disturbed(
    kind: str, dice: random.Random, tally: Tally, disk: Path | None, expected: Any
) -> None:
    """Run the command with disturbances and compare its results."""
    tally.runs += 1
    run = (disk or Path("runs")) / f"{kind}{tally.runs}"
    command = [*COMMANDS[kind], "--out", str(run)]
    for _ in range(dice.randint(2, 5)):
        event = dice.choice(["stop", "stop", "second", "damage", *(["full"] if disk else [])])
        tally.add(event)
        process = start(command)
        if wait(process, dice.uniform(0.5, 25)):
            check_end(process, event)
        elif event == "second" and any(run.glob("*.yaml")):
            second(kind, run)
            stop(process, dice)
        elif event == "full" and disk:
            fill_disk(process, disk, dice)
        else:
            stop(process, dice)
        if any(run.glob("*.yaml")):
            command = [kind, "--resume", str(run)]
        if event == "damage":
            damage(kind, run, dice)
    until_done(command)
    found = results(kind, run)
    if found != expected:
        raise WrongResultError(f"results differ: {found} instead of {expected}")
    shutil.rmtree(run)


def start(words: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "dmlray", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def wait(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether the process ends within so many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and output; no traceback is allowed in it."""
    try:
        text, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise WrongResultError(f"no end after {LIMIT:.0f} s: {process.args!r}") from None
    if "Traceback" in text:
        raise WrongResultError(f"a traceback of {process.args!r}:\n{text[-3000:]}")
    return process.returncode, text


def stop(process: "subprocess.Popen[str]", dice: random.Random) -> None:
    number = dice.choice(SIGNALS)
    process.send_signal(number)
    status, text = finish(process)
    allowed = {-signal.SIGKILL} if number == signal.SIGKILL else {128 + number, 0}
    if "run folder:" in text:  # all is done, and Python at its end handles no signal any more
        allowed.add(-number)
    if status not in allowed:
        raise WrongResultError(f"status {status} after {number.name}: {text[-2000:]}")


def check_end(process: "subprocess.Popen[str]", event: str) -> None:
    """A command that ended by itself succeeded, or says in a sentence what is wrong."""
    status, text = finish(process)
    if status not in (0, 1, 2) or (status and not text.strip()):
        raise WrongResultError(f"status {status} ({event}): {text[-2000:]}")


def second(kind: str, run: Path) -> None:
    """Another process on the same run folder is refused."""
    status, text = finish(start([kind, "--resume", str(run)]))
    if status not in (0, 2):  # 0: the first one has ended meanwhile
        raise WrongResultError(f"a second process ended with status {status}: {text[-2000:]}")


def fill_disk(process: "subprocess.Popen[str]", disk: Path, dice: random.Random) -> None:
    """Leave no byte for a while, then free some again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        if not wait(process, dice.uniform(5, 40)):
            stop(process, dice)
        else:
            check_end(process, "full disk")
    finally:
        filler.unlink()


def damage(kind: str, run: Path, dice: random.Random) -> None:
    """Cut or overwrite a file of a stopped run; put it back if the run is then refused."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    path = dice.choice(files)
    content = path.read_bytes()
    torn = dice.choice([content[: len(content) // 2], b"", dice.randbytes(len(content))])
    path.write_bytes(torn)
    status, text = finish(start([kind, "--resume", str(run)]))
    if status not in (0, 1, 2):
        raise WrongResultError(f"status {status} with {path.name} damaged: {text[-2000:]}")
    if status and path.exists() and path.read_bytes() == torn:
        path.write_bytes(content)


def until_done(command: list[str]) -> None:
    status, text = finish(start(command))
    if status:
        raise WrongResultError(f"{command} ended with status {status}: {text[-2000:]}")


def results(kind: str, run: Path) -> Any:
    """What must not depend on any disturbance."""
    if kind == "tune":
        trials = json.loads((run / "trials.json").read_text())["trials"]
        for trial in trials:
            check_epochs(run / "trials" / f"{trial['number']:04d}")
        return sorted(trial["number"] for trial in trials)
    folders = [run] if kind == "train" else [run / "members" / f"{i:03d}" for i in range(MEMBERS)]
    for folder in folders:
        check_epochs(folder)
    scores = json.loads((run / "scores.json").read_text())
    embeddings = [np.load(folder / "embeddings.npy").tobytes() for folder in folders]
    return [scores["metrics"], scores["curve"], [hash(content) for content in embeddings]]


def check_epochs(folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines]
    if epochs != sorted(set(epochs)):
        raise WrongResultError(f"{folder}: epochs {epochs}")


if __name__ == "__main__":
    sys.exit(main())
