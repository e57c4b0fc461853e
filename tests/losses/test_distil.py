"""The terms of distillation equal the paper's equations, one pair or triplet at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dmlray.losses.distil import angle_term, cosine_term, distance_term


def huber(x: Tensor, y: Tensor) -> Tensor:
    """Equation 3 of arXiv 1904.05068."""
    off = (x - y).abs()
    return off.square() / 2 if off <= 1 else off - 0.5


def unit(rows: Tensor) -> list[Tensor]:
    return [row / row.square().sum().sqrt() for row in rows]


def by_cosine(embeddings: Tensor, targets: Tensor) -> Tensor:
    pairs = zip(unit(embeddings), unit(targets), strict=True)
    return torch.stack([1 - student @ teacher for student, teacher in pairs]).mean()


def by_distance(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Equations 4 to 6; the sum over pairs is a mean over all B^2, as in the authors' code."""
    count = len(embeddings)

    def psi(rows: list[Tensor]) -> dict[tuple[int, int], Tensor]:
        apart = {
            (i, j): (rows[i] - rows[j]).square().sum().sqrt()
            for i in range(count)
            for j in range(count)
            if i != j
        }
        mu = torch.stack(list(apart.values())).mean()
        return {pair: distance / mu for pair, distance in apart.items()}

    student, teacher = psi(unit(embeddings)), psi(unit(targets))
    return torch.stack([huber(student[p], teacher[p]) for p in student]).sum() / count**2


def by_angle(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Equations 7 to 9; the mean over all B^3."""
    count = len(embeddings)

    def psi(rows: list[Tensor], i: int, j: int, k: int) -> Tensor:
        one, other = rows[i] - rows[j], rows[k] - rows[j]
        return one @ other / (one.square().sum().sqrt() * other.square().sum().sqrt())

    student, teacher = unit(embeddings), unit(targets)
    triplets = [
        (i, j, k) for i in range(count) for j in range(count) for k in range(count) if i != j != k
    ]
    terms = [huber(psi(student, *t), psi(teacher, *t)) for t in triplets]
    return torch.stack(terms).sum() / count**3


TERMS = [(cosine_term, by_cosine), (distance_term, by_distance), (angle_term, by_angle)]
Term = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.parametrize(("ours", "papers"), TERMS)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_paper_with_its_gradient(ours: Term, papers: Term, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    width = 3 if ours is cosine_term else 7  # a teacher may be wider
    targets = torch.randn(5, width, generator=generator, dtype=torch.float64)
    fast, slow = (rows.clone().requires_grad_() for _ in range(2))
    found, expected = ours(3 * fast, targets), papers(slow, targets)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad)


@pytest.mark.parametrize("term", [distance_term, angle_term])
def test_a_rotated_teacher_is_learned_already(term: Term) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(9, 4, generator=generator, dtype=torch.float64))[0]
    assert float(term(rows, rows @ rotation.T)) < 1e-12


@pytest.mark.parametrize("term", [distance_term, angle_term])
def test_equal_images_and_a_single_one_have_a_finite_gradient(term: Term) -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in (torch.ones(4, 3), torch.eye(3)[[0, 0, 1, 1]], torch.ones(1, 3)):
        rows = rows.clone().requires_grad_()
        loss = term(rows, torch.randn(len(rows), 5, generator=generator))
        loss.backward()
        assert loss.isfinite()
        assert rows.grad.isfinite().all()
        assert rows.grad.abs().max() < 1e4
