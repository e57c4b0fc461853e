"""The examples of docs/python.md run as they stand."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dmlray

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
EXAMPLES = re.findall(r"^```python( ray)?\n(.*?)^```$", PAGE, re.M | re.S)


FAST = [code for marked, code in EXAMPLES if not marked]
SLOW = [code for marked, code in EXAMPLES if marked]


def run(codes: Sequence[str], names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = names or {"dmlray": dmlray}
    for code in codes:
        exec(compile(code, "docs/python.md", "exec"), names)
    return names


def test_examples_run_in_this_process(
    finished: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs").mkdir()
    for name in finished:
        Path(name).rename(Path("runs", name))
    names = run(FAST)
    assert names["faster"].budget.epochs == 3
    assert names["written"].method.name == "margin"
    assert names["search"].ranges.space["method.alpha"].low == 8
    assert names["merged"].metrics == names["merged"].scores.curve[-1]
    assert dmlray.read_scores(Path("runs/both/scores.json")).curve
    printed = capsys.readouterr().out
    assert "2 problems" in printed
    assert "Did you mean alpha?" in printed


@pytest.mark.slow
def test_examples_that_start_ray_run_in_a_notebook_and_in_a_thread(
    images: Path,
) -> None:
    images.rename("photos")
    train, tune = SLOW

    async def cell() -> dict[str, Any]:  # a notebook's cells run inside its event loop
        return run([train])

    names = asyncio.run(cell())
    assert names["result"].metrics == dmlray.read_scores(Path("runs/photos/scores.json")).metrics
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run, [tune], names).result()
    assert len(names["found"].to_frame()) == 2
    assert names["winner"].protocol.selection == "last"
