"""The definitions, retyped with plain loops, and data with every difficulty in it."""

import torch
from torch import Tensor


def neighbours(embeddings: Tensor, query: int) -> list[int]:
    """All others, most similar first; of equals the lower index first."""
    similarities = (embeddings[query].double() @ embeddings.double().T).tolist()
    others = [i for i in range(len(embeddings)) if i != query]
    return sorted(others, key=lambda i: (-similarities[i], i))


def scores(embeddings: Tensor, labels: Tensor, recall_at: tuple[int, ...]) -> dict[str, float]:
    """Musgrave et al., ECCV 2020: one query, one neighbour at a time."""
    ids, rows = labels.tolist(), []
    for query, own in enumerate(ids):
        hits = [ids[i] == own for i in neighbours(embeddings, query)]
        others = sum(hits)
        if others == 0:
            continue
        row = {f"recall_at_{k}": float(any(hits[:k])) for k in recall_at}
        row["r_precision"] = sum(hits[:others]) / others
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(others) if hits[i]]
        row["map_at_r"] = sum(precisions) / others
        rows.append(row)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def unit_rows(seed: int, count: int, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator))


def rows_with_ties(seed: int, count: int) -> Tensor:
    """At most 16 different unit rows, with products that are exact in any order of summing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, (count, 4), generator=generator) - 0.5


def unequal_labels(seed: int, count: int) -> Tensor:
    """Shuffled, gappy and large ids of small and large classes; the last item is alone."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(1, 4, (count - 1,), generator=generator) ** 2 + 2**24
    return torch.cat([drawn, torch.tensor([-7])])
