"""Vectors on a cluster: the same as in one process; a lost node costs no shard that is there."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dmlray
from dmlray.data.batches.augment import Transform
from dmlray.inference.model import bare_backbone
from dmlray.inference.model_files import write_model
from tests.cluster.commands import Command
from tests.cluster.raylets import Raylets

pytestmark = pytest.mark.slow
SHARD, COPIES = 8, 2


@pytest.fixture(scope="module")
def raylets(environment: dict[str, str]) -> Iterator[Raylets]:
    cluster = Raylets(environment)
    yield cluster
    cluster.close()


def test_of_two_nodes_one_is_lost_and_the_driver_is_killed(
    tmp_path: Path, toy_images: Path, raylets: Raylets
) -> None:
    """The driver goes first, then the same command goes on and loses a node."""
    images, files = tmp_path / "images", sorted(toy_images.glob("*/*.png"))
    for copy in range(COPIES):
        (images / str(copy)).mkdir(parents=True)
        for number, file in enumerate(files):
            (images / str(copy) / f"{number}.png").write_bytes(file.read_bytes())
    (images / "0" / "torn.png").write_bytes(b"torn")
    (tmp_path / "model").mkdir()
    # Slow enough on one core to be seen while it runs.
    model = bare_backbone("resnet18", "none", transform=Transform(size=128, eval_resize=128))
    write_model(model, tmp_path / "model")
    nodes = [raylets.join(), raylets.join()]
    words = ["embed", "model", "images", "--out", "vectors", "--shard", str(SHARD)]
    words += ["--address", raylets.address]
    shards = tmp_path / "vectors" / "shards"

    def there() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in shards.glob("part-*")}

    command = Command(words, tmp_path, raylets.environment)
    command.until(lambda: len(there()) >= 3)
    command.kill(signal.SIGKILL)
    command.process.wait()
    first = there()
    command = Command(words, tmp_path, raylets.environment)
    command.until(lambda: len(there()) >= len(first) + 3)
    second = there()
    raylets.lose(nodes[0])
    status, said = command.finish()
    assert (status, "Traceback" in said) == (0, False), said
    assert f"{COPIES * len(files)} of 512 dimensions" in said
    assert "1 images, listed in vectors/failed.csv" in said
    last = there()
    assert len(last) == COPIES * len(files) // SHARD + 1
    assert {name: last[name] for name in {**first, **second}} == {**first, **second}
    table = pd.read_parquet(shards)
    assert table.path.is_unique
    assert len(table) == COPIES * len(files)
    some = table.iloc[::19]
    rows = dmlray.load_model(tmp_path / "model").embed(some.path.tolist(), device="cpu")
    np.testing.assert_allclose(np.stack(some.vector), rows, atol=1e-5)
