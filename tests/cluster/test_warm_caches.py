"""Every node has the decoded images before anything trains there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlray.cluster.warm_caches import fill_caches, nodes_that_train
from dmlray.errors import DataError
from dmlray.plans.resolve import read_experiment
from dmlray.reporting.progress import SilentDisplay
from tests.toy_data import toy_words


@pytest.fixture(scope="module")
def two_nodes(environment: dict[str, str]) -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    from dmlray.cluster.local_ray import few_processes

    with pytest.MonkeyPatch.context() as patch, few_processes():
        for name, value in environment.items():
            patch.setenv(name, value)
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_other_nodes_decode_and_report_missing_images(
    two_nodes: None, toy_images: Path, environment: dict[str, str]
) -> None:
    file = Path("experiments/proxy_anchor_demo.yaml")
    fill_caches(read_experiment(file, toy_words(toy_images)).experiment, SilentDisplay(), 1, 0)
    assert list(Path(environment["DMLRAY_CACHE"]).glob("images/folder-*/images.bin"))
    missing = read_experiment(file, ["data.name=folder", "data.root=/nowhere"]).experiment
    with pytest.raises(DataError, match=r"^node .*/nowhere: no such folder"):
        fill_caches(missing, SilentDisplay(), 1, 0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "trains"),
    [
        (1, 0, ["cpus", "gpus"]),
        (1, 1, ["gpus"]),
        (0.5, 0.25, ["gpus", "few cores"]),
        (9, 1, []),
        (16, 0, ["cpus"]),
    ],
)
def test_only_nodes_that_train_decode(cpus: float, gpus: float, trains: list[str]) -> None:
    resources = {
        "head": {},
        "cpus": {"CPU": 64.0},
        "gpus": {"CPU": 8.0, "GPU": 2.0},
        "few cores": {"CPU": 0.5, "GPU": 2.0},
        "lost": {"CPU": 64.0, "GPU": 8.0},
    }
    nodes = [
        {"NodeID": name, "Alive": name != "lost", "Resources": has}
        for name, has in resources.items()
    ]
    assert [node["NodeID"] for node in nodes_that_train(nodes, cpus, gpus)] == trains
