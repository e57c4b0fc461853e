"""benchmarks/gpu.py from first line to last, where there is no GPU, and on a bare machine."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path("benchmarks/gpu.py")
RUN = """
import runpy, sys
sys.modules.update(dict.fromkeys({missing!r}))
sys.path.insert(0, {folder!r})
sys.argv = ["gpu.py", *{words!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


LOST = """
import os, subprocess, sys, time
sys.path.insert(0, {folder!r})
from _gpu_parts import Part, run_each

def hang(bench):
    print("child", subprocess.Popen(["sleep", "600"]).pid, flush=True)
    time.sleep(600)

def fail(bench):
    raise MemoryError("of the GPU")

def end(bench):
    os.kill(os.getpid(), 9)

def work(bench):
    return {{"worked": bench}}, []

parts = [Part(run.__name__, 3, run) for run in (hang, fail, end, work)]
print(run_each(parts, 1.0, 60), run_each(parts[-1:], 1.0, 0.5))
"""


def run(missing: list[str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the script where the modules `missing` cannot be imported."""
    code = RUN.format(missing=missing, folder=str(SCRIPT.parent), words=words, script=str(SCRIPT))
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


@pytest.mark.slow
def test_every_line_is_printed_without_ray_optuna_and_faiss() -> None:
    absent = ["ray", "optuna", "faiss", "sklearn", "scipy", "rich", "click"]
    found = run(absent, "--device", "cpu", "--small", "--rounds", "1")
    assert found.returncode == 0, found.stderr
    for part in ("test_resnet", "TFLOP/s", "merge of 3", "scores", "tf32", "checkpoints and"):
        assert part in found.stdout
    assert found.stdout.count("RATIO gpu_") == 13


def test_a_part_that_hangs_fails_or_dies_loses_only_itself() -> None:
    code = LOST.format(folder=str(SCRIPT.parent))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    hung, failed = "hang: ended after 3 s without a result", "fail: failed"
    lost = [hung, failed, "end: killed by SIGKILL"]
    assert lines[-1] == f"{lost} {['work: not begun, for no time was left']}"
    assert "RATIO worked 1" in lines
    assert "wrong: MemoryError: of the GPU" in found.stderr
    (child,) = (line.split()[1] for line in lines if line.startswith("child "))
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"  # what it began ended, too


@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        (["pydantic"], [], "gpu.py needs pydantic, which is not installed here"),
        ([], ["--device", "meta"], "gpu.py: no device 'meta'"),
        ([], ["--only", "speed"], "gpu.py: no part 'speed'. Allowed: resnet50, precisions"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], words: list[str], said: str
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *words])
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert str(ended.value).startswith(said)
    assert "\n" not in str(ended.value)
