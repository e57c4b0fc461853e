"""Requested resources fit on the cluster, node by node and GPU by GPU, for every command."""

from itertools import product
from pathlib import Path

import pytest

from dmlray.cluster import forecast, train
from dmlray.cluster.ensemble import merge_actor
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.resources import Cluster, Location, Node, Patience
from dmlray.cluster.search import run
from dmlray.data.dataset import from_ordered
from dmlray.errors import ConfigError, ResourceError
from dmlray.learn.probe import Probe
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import Search, read_search

Nodes = list[tuple[float, float]]


def cluster(nodes: Nodes) -> Cluster:
    return Cluster.of(Node(*node) for node in nodes)


def experiment(workers: int) -> Experiment:
    words = [
        f"data.batch_size={60 * workers}",
        "data.images_per_class=null",
        f"budget.workers={workers}",
    ]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


def trials(*words: str) -> Search:
    return read_search(Path("searches/proxy_anchor_demo.yaml"), list(words))


def placed(nodes: Nodes, cpus: float, gpus: float, most: int = 200) -> int:
    """Count the processes that a scheduler places, each on one node, and on one GPU for a share."""
    free = [[cpu, [1.0] * int(gpu)] for cpu, gpu in nodes]
    count = 0
    while count < most and any(_place(node, cpus, gpus) for node in free):
        count += 1
    return count


def _place(node: list, cpus: float, gpus: float) -> bool:  # type: ignore[type-arg]
    need, share = (int(gpus), 1.0) if gpus >= 1 else (int(gpus > 0), gpus)
    chosen = [i for i, left in enumerate(node[1]) if left >= share - 1e-6][:need]
    if node[0] < cpus - 1e-6 or len(chosen) < need:
        return False
    node[0] -= cpus
    for i in chosen:
        node[1][i] -= share
    return True


KINDS: Nodes = [(0, 0), (2, 0), (192, 0), (0, 2), (4, 8), (16, 1), (64, 8), (3.5, 1)]
CLUSTERS: list[Nodes] = [list(nodes) for n in (1, 2, 3) for nodes in product(KINDS, repeat=n)]


@pytest.mark.parametrize("gpus", [0, 0.25, 0.3333, 0.4, 0.6, 1, 2, 3])
@pytest.mark.parametrize("cpus", [0.5, 1, 3, 8])
def test_processes_are_counted_as_they_can_be_placed(cpus: float, gpus: float) -> None:
    for nodes in CLUSTERS:
        assert min(200, cluster(nodes).count(cpus, gpus)) == placed(nodes, cpus, gpus), nodes


@pytest.mark.parametrize(
    ("workers", "nodes", "cpus"),
    [
        (1, [(8, 0)], 8),
        (3, [(8, 0)], 2),
        (4, [(8, 0), (8, 0)], 4),
        (3, [(8, 0), (2, 0)], 2),
        (1, [(192, 0), (16, 0)], 192),
        (1, [(96, 8)], 12),  # its GPU's share of the cores, not all of them
        (8, [(30, 8)], 3),
        (8, [(8, 0), (64, 8)], 8),  # no core of a node without a GPU helps
        (1, [(192, 0), (16, 1)], 16),
        (1, [(0, 0), (64, 8)], 8),
        (16, [(128, 0), (64, 8), (64, 8)], 8),
        (4, [(16, 0), (32, 4)], 8),
        (2, [(4, 0), (8, 1), (8, 1)], 8),
        (1, [(2, 0), (2, 1)], 2),
        (1, [(4, 1), (64, 8)], 8),  # the node that has more
        (9, [(4, 1), (64, 8)], 4),
        (2, [(4, 2), (32, 1)], 4),  # with more only one fits
        (1, [(3.5, 1)], 3),
    ],
)
def test_a_training_gets_cores_with_which_all_its_workers_fit(
    workers: int, nodes: Nodes, cpus: int
) -> None:
    gpu = any(node[1] for node in nodes)
    assert train.resources_of(experiment(workers), cluster(nodes)) == (cpus, gpu)
    assert placed(nodes, cpus, gpu) >= workers
    assert placed(nodes, cpus + 1, gpu) < workers or cpus + 1 > max(
        c / (g if gpu else 1) for c, g in nodes if g or not gpu
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_no_training_starts_that_cannot_be_placed(workers: int) -> None:
    plan = experiment(workers)
    for nodes in CLUSTERS:
        try:
            cpus, gpu = train.resources_of(plan, cluster(nodes))
        except ResourceError:
            assert placed(nodes, 1, any(g for _, g in nodes)) < workers, nodes
        else:
            assert placed(nodes, cpus, gpu) >= workers, nodes


SEARCHES = [
    [],
    ["folds=8"],
    ["folds=6", "gpus=0.6"],
    ["folds=4", "gpus=0.25"],
    ["folds=4", "cpus=8"],
    ["folds=4", "gpus=2"],
    ["folds=4", "gpus=0", "cpus=2", "folds_at_once=3"],
    ["folds=4", "gpus=0.5", "trials_at_once=2"],
]


@pytest.mark.parametrize("words", SEARCHES, ids=" ".join)
def test_all_trials_of_a_search_that_run_at_once_can_be_placed(words: list[str]) -> None:
    plan = trials("trials=100", *words)
    for nodes in CLUSTERS:
        try:
            found = run.resources_of(plan, cluster(nodes))
        except ResourceError:
            gpus = plan.settings.gpus
            gpus = float(any(g for _, g in nodes)) if gpus is None else gpus
            assert not placed(nodes, plan.settings.cpus or 1, gpus), nodes
        else:
            processes = found.workers * found.at_once
            assert processes > 0, nodes
            assert placed(nodes, found.cpus, found.gpus, 600) >= processes, nodes


@pytest.mark.parametrize(
    ("words", "nodes", "expected"),
    [
        (["folds=8"], [(64, 0), (4, 8)], (0.5, 8, 1)),
        (["folds=6", "gpus=0.6"], [(32, 4)], (8, 4, 1)),  # not two on a GPU, nor 2.4 on four
        (["folds=4"], [(64, 8), (64, 8)], (8, 4, 4)),
        (["folds=4", "gpus=0.25"], [(8, 1)], (2, 4, 1)),
        (["folds=3", "gpus=0.4"], [(8, 2)], (2, 3, 1)),
        (["folds=2", "gpus=2"], [(32, 3), (32, 3)], (32, 2, 1)),
        (["folds=2", "cpus=5"], [(4, 0), (11, 0)], (5, 1, 2)),
        (["folds=2", "cpus=5"], [(64, 8), (4, 8)], (5, 2, 4)),
    ],
)
def test_a_search_shares_out_each_node(
    words: list[str], nodes: Nodes, expected: tuple[float, int, int]
) -> None:
    found = run.resources_of(trials("trials=100", *words), cluster(nodes))
    assert (found.cpus, found.workers, found.at_once) == expected


@pytest.mark.parametrize("members_per_gpu", [1, 2, 3, 7])
def test_every_actor_of_an_ensemble_can_be_placed(members_per_gpu: int) -> None:
    for nodes in CLUSTERS:
        try:
            share = share_of(cluster(nodes), members_per_gpu)
        except ResourceError:
            assert not placed(nodes, 1, 0), nodes
            continue
        assert min(200, share.capacity(cluster(nodes))) == placed(nodes, share.cpus, share.gpus), (
            nodes
        )
        gpus = sum(int(gpu) for _, gpu in nodes)
        assert share.capacity(cluster(nodes)) == gpus * members_per_gpu or not gpus, nodes


def test_a_merger_fits_one_node() -> None:
    assert merge_actor._resources(cluster([(192, 0), (16, 1)])) == (16, True)
    assert merge_actor._resources(cluster([(4, 0), (6, 0)])) == (6, False)
    with pytest.raises(ResourceError, match="asked for 1 CPU and 1 GPU"):
        merge_actor._resources(cluster([(8, 0), (0, 1)]))


def test_a_forecast_repeats_the_winner_on_as_many_actors_as_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "_probe", lambda *_, **__: Probe(1, 1, 1, 1, 1, 1, 1, 0, 0))
    monkeypatch.setattr(forecast, "_training", lambda *_: 1.0)
    monkeypatch.setattr(forecast, "_memory", lambda *_: {"memory": 0, "gpu_memory": 0})

    data = from_ordered("two", Path(), [("a", ["0"]), ("b", ["1"])], 1)

    def seconds(*words: str) -> float:
        plan = trials("trials=1", *words)
        return forecast.of_search(plan, data, cluster([(0.5, 0), (2.5, 0)])).seconds

    assert seconds("repeats=5") - seconds() == 3  # five on the two whole cores of one node


@pytest.mark.parametrize(
    ("ask", "nodes", "message"),
    [
        (lambda c: c.fit(9, 1, 8), [(8, 0), (64, 8)], r"asked for 8 processes of 9 CPU and 1 GPU, "
         r"each on one node, but the cluster has 8 CPU and 0 GPU on one node, "
         r"64 CPU and 8 GPU on one node: enough for 7$"),
        (lambda c: c.fit(1, 4), [(2, 0)],
         r"asked for 1 CPU and 4 GPU on one node, but the cluster has 2 CPU and 0 GPU on one nod"),
        (lambda c: c.fit(3, 0), [(2, 0)] * 3, r"has 2 CPU and 0 GPU on each of 3 nodes$"),
        (lambda c: c.fit(1, 0), [], r"has no node$"),
    ],
)  # fmt: skip
def test_excessive_requests_are_refused_with_the_resources_of_each_node(
    ask: object, nodes: Nodes, message: str
) -> None:
    with pytest.raises(ResourceError, match=message):
        ask(cluster(nodes))  # type: ignore[operator]


@pytest.mark.parametrize("gpus", ["1.5", "2.0001", "0.00001", "-1", "nan"])
def test_a_share_of_a_gpu_that_ray_cannot_give_is_refused_in_the_plan(gpus: str) -> None:
    with pytest.raises(ConfigError, match="gpus"):
        trials(f"gpus={gpus}")


@pytest.mark.parametrize("gpus", ["0", "0.0001", "0.5", "1", "2", "8.0", "null"])
def test_a_share_of_a_gpu_or_whole_gpus_are_allowed(gpus: str) -> None:
    trials(f"gpus={gpus}")


def test_locations_that_are_not_used_leave_the_rest_of_their_node() -> None:
    all_nodes = Cluster.of([Node(8, 4, "a"), Node(8, 4, "b"), Node(8, 0, "c")])
    unused = [Location("a", "", ("1",)), Location("a", "", ("1",)), Location("c", "")]
    left = all_nodes.without([*unused, Location("lost", "", ("0",))])
    assert left.each == (Node(8, 3, "a"), Node(8, 4, "b"))
    assert all_nodes.without([]) == all_nodes


def test_patience_ends_only_after_its_time_without_capacity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("dmlray.cluster.resources.time.monotonic", lambda: now[0])
    patience = Patience(10)
    seen = []
    for now[0], room in [(0, 0), (9, 0), (9.5, 1), (12, 0), (21, 0), (22, 0), (23, 3), (24, 0)]:
        seen.append(patience.is_over(room))
    assert seen == [False] * 5 + [True, False, False]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([Node(2, 0)], "2 CPU cores, no GPU"),
        ([Node(1, 0)], "1 CPU core, no GPU"),
        ([Node(16, 1, "a", "H200")], "1 GPU (H200), 16 CPU cores"),
        ([Node(64, 4, "a", "H100")] * 2, "8 GPUs (H100), 128 CPU cores on 2 nodes"),
        ([Node(8, 0, "a"), Node(8, 2, "b", "T4")], "2 GPUs (T4), 16 CPU cores on 2 nodes"),
    ],
)
def test_a_cluster_is_described_in_a_few_words(nodes: list[Node], words: str) -> None:
    assert str(Cluster.of(nodes)) == words
