"""benchmarks/gpu.py from first line to last, where there is no GPU, and on a bare machine."""

import os
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
    assert found.stdout.count("RATIO gpu_") == 10


@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        (["pydantic"], [], "gpu.py needs pydantic, which is not installed here"),
        ([], ["--device", "meta"], "gpu.py: no device 'meta'"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    missing: list[str], words: list[str], said: str
) -> None:
    found = run(missing, *words)
    assert found.returncode != 0
    assert found.stderr.startswith(said)
    assert found.stderr.count("\n") == 1
