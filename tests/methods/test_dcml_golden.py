"""The whole objective of DCML with DiVA against the authors' numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlray.losses.separation import Separation
from dmlray.methods import Batch
from dmlray.methods._triplets import Triplets
from dmlray.methods.dcml import Config, Learner
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load

HEADS = ("discriminative", "selfsimilarity", "shared", "intra")
TASKS = ("discriminative", "shared", "intra")


def golden_learner(tensors: dict[str, Tensor]) -> Learner:
    """The learner with the authors' parameters, queue and triplets."""
    queue, dtype = tensors["queue"], tensors["W_ens0"].dtype
    knobs = ("temperature", "alpha_ssl", "alpha_shared", "alpha_intra", "margin")
    dim, width = tensors["W_ens0"].shape
    parts, composites = (sum(k.startswith(f"W_{s}") for k in tensors) for s in ("ens", "comp"))
    config = Config(
        mode="diva", dim=dim, sub_embeddings=parts, composites=composites, rho=1.0,
        queue_size=len(queue), **{knob: float(tensors[knob]) for knob in knobs},
    )  # fmt: skip
    classes = len(tensors["beta_shared"])
    learner = Learner(config, nn.Identity(), width, classes)
    hidden = len(tensors["b1_dir0"])
    learner.separations = nn.ModuleList(Separation(dim, hidden) for _ in range(3))
    learner.to(dtype)
    learner.queue.keys.copy_(queue)
    learner.queue.filled.fill_(True)
    with torch.no_grad():
        for name, parameter, rows in golden_parameters(learner):
            parameter[rows].copy_(tensors[name])
    return learner


def golden_parameters(learner: Learner) -> list[tuple[str, Tensor, Any]]:
    """(the authors' name, our parameter, its rows) for each of their parameters."""
    head, found = learner.compositor, []
    for kind, layer, size in (("ens", head.sub_embed, head.dim), ("comp", head.choose, head.count)):
        for i in range(layer.out_features // size):
            rows = slice(i * size, (i + 1) * size)
            found += [(f"W_{kind}{i}", layer.weight, rows), (f"b_{kind}{i}", layer.bias, rows)]
    for i, separation in enumerate(learner.separations):
        names = ("W1", "b1", "W2", "b2")
        for name, parameter in zip(names, separation.parameters(), strict=True):
            found.append((f"{name}_dir{i}", parameter, slice(None)))
    return found + [(f"beta_{task}", learner.boundaries, row) for row, task in enumerate(TASKS)]


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_diva_total_*.npz"))
def test_the_whole_objective_of_diva_equals_the_authors_code(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = load(path)
    directions = [str(direction) for direction in arrays.pop("directions")]
    assert directions == [f"{head}-discriminative" for head in HEADS[1:]]
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    learner = golden_learner(tensors)
    rhos = tensors["rho"].tolist()
    for separation, rho in zip(learner.separations, rhos, strict=True):
        separation.register_forward_hook(lambda _, __, value, rho=rho: rho * value)

    def given_triplets(head: str, units: Tensor, labels: Tensor) -> Triplets:
        anchors, positives, negatives = tensors[f"triplets_{head}"].unbind(1)
        usable = torch.ones(len(anchors), dtype=torch.bool)
        return Triplets(anchors, positives, negatives, usable)

    monkeypatch.setattr(learner, "draw_triplets", given_triplets)
    images = tensors["feature_map"].requires_grad_()
    features = images.mean((2, 3))
    outputs = {**learner(Batch(features, tensors["labels"])), "keys": tensors["key"]}
    terms = learner.loss(outputs, tensors["labels"])
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    weights = {k: float(tensors[f"alpha_{k}"]) for k in ("ssl", "shared", "intra")}
    found = {f"part_{name}": term / weights.get(name, 1.0) for name, term in terms.items()}
    heads = learner._heads(outputs["composites"])
    found |= {f"out_{name}": head for name, head in heads.items()}
    found |= {"loss": loss, "test_embedding_0.5_1_1_1": learner.embed(features)}
    found["grad_feature_map"] = images.grad
    for name, parameter, rows in golden_parameters(learner):
        found[f"grad_{name}"] = parameter.grad[rows]
    expected = ("part_", "out_", "grad_", "loss", "test_embedding")
    assert set(found) == {key for key in tensors if key.startswith(expected)}
    for key, value in found.items():
        # Gradients of boundaries are float32 in every file, because the authors' boundaries are.
        single = torch.float32 in (loss.dtype, tensors[key].dtype)
        assert_close(value, tensors[key], single, name=key)
