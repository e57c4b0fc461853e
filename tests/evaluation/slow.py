"""The definitions, retyped with plain loops, and data with every difficulty in it."""

import torch
from torch import Tensor

from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.task import RetrievalTask


def ranked(embeddings: Tensor, task: RetrievalTask, query: int) -> list[int]:
    """The gallery images that count for an image, most similar first; of equals the first."""
    every = range(len(embeddings))
    labels, groups = task.labels.tolist(), None if task.groups is None else task.groups.tolist()
    similarities = (embeddings.double() @ embeddings[query].double()).tolist()
    gallery = every if task.gallery is None else task.gallery.tolist()
    kept = [
        image
        for image in gallery
        if image != query
        and not (groups and labels[image] == labels[query] and groups[image] == groups[query])
    ]
    return sorted(kept, key=lambda image: -similarities[image])


def scores(embeddings: Tensor, task: RetrievalTask, depths: tuple[int, ...]) -> dict[str, float]:
    """Musgrave et al., ECCV 2020, and Weyand et al., CVPR 2020: one query, one item at a time."""
    labels, rows = task.labels.tolist(), []
    for query in range(len(labels)) if task.queries is None else task.queries.tolist():
        hits = [labels[image] == labels[query] for image in ranked(embeddings, task, query)]
        others = sum(hits)
        if others == 0:
            continue
        precisions = [sum(hits[: i + 1]) / (i + 1) if hits[i] else 0.0 for i in range(len(hits))]
        row = {f"recall_at_{k}": float(any(hits[:k])) for k in depths}
        row["r_precision"] = sum(hits[:others]) / others
        row["map_at_r"] = sum(precisions[:others]) / others
        row["mean_reciprocal_rank"] = 1 / (hits.index(True) + 1)
        row |= {f"cmc_at_{k}": row[f"recall_at_{k}"] for k in depths}
        row |= {f"precision_at_{k}": sum(hits[:k]) / k for k in depths}
        row |= {
            f"mean_average_precision_at_{k}": sum(precisions[:k]) / min(k, others) for k in depths
        }
        rows.append(row)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def names(depths: tuple[int, ...]) -> list[str]:
    """The metrics of `scores`."""
    families = ("cmc_at_", "precision_at_", "mean_average_precision_at_")
    deep = [f"{family}{k}" for family in families for k in depths]
    return [*standard_metrics(depths), "mean_reciprocal_rank", *deep]


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
