"""Equal embeddings give equal scores, however a machine's product of matrices rounds."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dmlray.evaluation import ensemble_scores, incremental, matmul, neighbours, ranking, retrieval
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.incremental import Growing
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.products import Part, Similarity, similarity
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask

COUNT, CLASSES, DEPTHS = 90, 15, (1, 2, 5, 40)
Kernel = Callable[..., Tensor]


def labels_of(seed: int) -> Tensor:
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed)) % CLASSES


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread(seed: int, width: int) -> Tensor:
    return F.normalize(drawn(seed, COUNT, width))


def clustered(seed: int, width: int) -> Tensor:
    return F.normalize(drawn(seed, CLASSES, width)[labels_of(seed)] + spread(seed + 1, width))


def near_ties(seed: int, width: int) -> Tensor:
    """A few rows again and again, each time off by less than float32 products can tell."""
    few = F.normalize(drawn(seed, 6, width))
    picked = torch.randint(6, (COUNT,), generator=torch.Generator().manual_seed(seed))
    return few[picked] + 2e-8 * drawn(seed + 1, COUNT, width)


def collapsed(seed: int, width: int) -> Tensor:
    return F.normalize(torch.ones(COUNT, width) + 1e-6 * drawn(seed, COUNT, width))


def twins(seed: int, width: int) -> Tensor:
    return spread(seed, width)[torch.arange(COUNT) // 4 * 4]


DRAWS = [spread, clustered, near_ties, collapsed, twins]


def by_chunks(block: Tensor, rows: Tensor, gallery: Tensor, **options: float) -> Tensor:
    """A kernel that adds up a few dimensions at a time, from the last to the first."""
    block.mul_(options.get("beta", 0.0)) if options.get("beta") else block.zero_()
    for columns in reversed(torch.arange(rows.shape[1]).split(3)):
        block += options.get("weight", 1.0) * (rows[:, columns] @ gallery[:, columns].T)
    return block


def as_wrong_as_allowed(block: Tensor, rows: Tensor, gallery: Tensor, **options: float) -> Tensor:
    """A kernel that is off by any amount up to the bound, which depends on the width."""
    matmul.add_product(block, rows, gallery, beta=options.get("beta", 0.0),
                     weight=options.get("weight", 1.0))  # fmt: skip
    bound = Similarity([Part(rows, gallery)], *similarity(Part(gallery, gallery))[1:]).error.min()
    noise = torch.rand(block.shape, generator=torch.Generator().manual_seed(7)) * 2 - 1
    return block.add_(0.9 * options.get("weight", 1.0) * bound * noise)


def in_bfloat16(block: Tensor, rows: Tensor, gallery: Tensor, **options: float) -> Tensor:
    """What a CPU does that rounds to bfloat16 where that is allowed."""
    if options.pop("rounded", False):
        rows, gallery = (tensor.bfloat16().float() for tensor in (rows, gallery))
    return matmul.add_product(block, rows, gallery, **options)  # type: ignore[arg-type]


@pytest.fixture(params=[by_chunks, as_wrong_as_allowed, in_bfloat16], ids=lambda k: k.__name__)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Exchanges the product of matrices when called."""

    def exchange() -> None:
        for module in (neighbours, incremental, ensemble_scores):
            monkeypatch.setattr(module, "add_product", request.param)
        monkeypatch.setattr(retrieval, "may_round", lambda rows: request.param is in_bfloat16)

    return exchange


def defined(similarities: Tensor, labels: Tensor, gallery_labels: Tensor) -> dict[str, float]:
    """Scores by the definition: sort, of equals the lower index first, one query at a time."""
    totals = dict.fromkeys([*(f"recall_at_{k}" for k in DEPTHS), "r_precision", "map_at_r"], 0.0)
    counted = 0
    for query, row in enumerate(similarities):
        order = [i for i in (-row).argsort(stable=True).tolist() if row[i] > -torch.inf]
        hits = [bool(gallery_labels[i] == labels[query]) for i in order]
        size = sum(hits)
        if not size:
            continue
        counted += 1
        for k in DEPTHS:
            totals[f"recall_at_{k}"] += any(hits[:k])
        totals["r_precision"] += sum(hits[:size]) / size
        precisions = (sum(hits[: i + 1]) / (i + 1) for i in range(size) if hits[i])
        totals["map_at_r"] += sum(precisions) / size
    return {name: total / counted for name, total in totals.items()}


def exact(parts: list[Part]) -> Tensor:
    """All similarities, one exact dot product at a time, each image hidden from itself."""
    numbers = torch.arange(COUNT)
    pairs = torch.cartesian_prod(numbers, numbers)
    found = Similarity(parts, torch.zeros(COUNT), 1.0).exact(pairs[:, 0], pairs[:, 1])
    return found.view(COUNT, COUNT).fill_diagonal_(-torch.inf)


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("width", [1, 3, 24, 130])
def test_scores_do_not_depend_on_the_kernel(
    kernel: Callable[[], None], draw: Callable[[int, int], Tensor], width: int
) -> None:
    embeddings, labels = draw(1, width), labels_of(1)
    expected = defined(exact([Part(embeddings, embeddings)]), labels, labels)
    plain = retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics(DEPTHS))
    kernel()
    for found in (
        plain,
        retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics(DEPTHS)),
    ):
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_ensembles_of_every_size_do_not_depend_on_the_kernel(
    kernel: Callable[[], None], draw: Callable[[int, int], Tensor]
) -> None:
    members, labels, weights = (
        [draw(s, 4 + s) for s in range(4)],
        labels_of(0),
        (1.0, 2.5, 0.3, 1.0),
    )
    parts = [Part(m, m, w) for m, w in zip(members, weights, strict=True)]
    kernel()
    at_once, growing_one = (
        prefix_scores(members, RetrievalTask(labels), standard_metrics(DEPTHS), weights=weights),
        Growing(RetrievalTask(labels), standard_metrics(DEPTHS)),
    )
    for size, found in enumerate(at_once, start=1):
        expected = pytest.approx(defined(exact(parts[:size]), labels, labels), abs=1e-12)
        assert found == expected
        assert growing_one.add(members[size - 1], weights[size - 1]) == expected


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_a_gallery_apart_does_not_depend_on_the_kernel(
    kernel: Callable[[], None], draw: Callable[[int, int], Tensor]
) -> None:
    """Images 20 to 39 are on both sides."""
    embeddings, labels, numbers = draw(3, 20), labels_of(3), torch.arange(COUNT)
    task = RetrievalTask(labels, numbers[:40], numbers[20:])
    similarities = exact([Part(embeddings, embeddings)])[:40, 20:]
    expected = pytest.approx(defined(similarities, labels[:40], labels[20:]), abs=1e-12)
    plain = retrieval_scores(embeddings, task, standard_metrics(DEPTHS))
    kernel()
    for found in (plain, retrieval_scores(embeddings, task, standard_metrics(DEPTHS))):
        assert found == expected


def test_exact_similarities_are_those_of_whole_numbers_and_of_float64() -> None:
    whole = torch.randint(-9, 9, (COUNT, 37), generator=torch.Generator().manual_seed(0)).float()
    hidden = torch.full((COUNT,), -torch.inf).double()
    expected = (whole.double() @ whole.double().T).diagonal_scatter(hidden)
    assert exact([Part(whole, whole)]).equal(expected)
    rows = spread(0, 37)
    close = (rows.double() @ rows.double().T).diagonal_scatter(hidden)
    torch.testing.assert_close(exact([Part(rows, rows)]), close, rtol=0, atol=1e-14)


@pytest.mark.parametrize("width", [2, 30, 200, 600])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_bound_holds_for_real_products(width: int, rounded: bool) -> None:
    rows = torch.cat([spread(5, width), drawn(6, COUNT, width).abs() * 30, 1e-3 * spread(7, width)])
    bound = similarity(Part(rows, rows), rounded).error
    computed = rows.bfloat16().float() if rounded else rows
    off = (computed @ computed.T - rows.double() @ rows.double().T).abs().amax(1)
    assert (off <= bound).all()


def test_collapsed_embeddings_are_compared_by_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = collapsed(0, 24), labels_of(0)
    expected = retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics(DEPTHS))
    monkeypatch.setattr(ranking, "MANY", 100)
    asked: list[int] = []
    product = Similarity.nearly_exact

    def recorded(self: Similarity, rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return product(self, rows)

    monkeypatch.setattr(Similarity, "nearly_exact", recorded)
    assert retrieval_scores(
        embeddings, RetrievalTask(labels), standard_metrics(DEPTHS)
    ) == pytest.approx(expected, abs=0.02)
    assert asked
    same = torch.ones(COUNT, 24) / 24**0.5
    by_index = defined(torch.zeros(COUNT, COUNT).fill_diagonal_(-torch.inf), labels, labels)
    assert retrieval_scores(same, RetrievalTask(labels), standard_metrics(DEPTHS)) == pytest.approx(
        by_index, abs=1e-12
    )
