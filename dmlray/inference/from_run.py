"""A finished training, ensemble or merge -> its model, from files of the run folder alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmlray import __version__, backbones, methods
from dmlray.backbones import Trunk
from dmlray.backbones.weights import is_file
from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.pca import Projection
from dmlray.inference.config import Branch, ModelConfig, branch_of
from dmlray.inference.model import Model
from dmlray.inference.network import Network, fill
from dmlray.learn.chosen_epoch import chosen_weights
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import Member, members_of
from dmlray.results.merged_file import read_merged
from dmlray.scores import read_scores

KINDS = ("experiment", "ensemble", "merge")


def load_run(run: Path) -> Model:
    """The model of the finished training, ensemble or merge in folder `run`.

    Raises:
        DmlrayError: If it is something else or not finished, or one of its files is damaged.
    """
    folder = RunFolder(run)
    if (kind := folder.kind()) not in KINDS:
        problem = f"is a {kind.replace('_', ' ')}, which has no model of its own"
        allowed = "Allowed: runs of dmlray train, ensemble and merge"
        raise ConfigError(str(folder), [f"{problem}. {allowed}"])
    if not folder.scores.exists():
        problem = "is not finished: it has no scores. Resume it to finish it"
        raise DataError(f"{folder}: {problem}")
    scores = read_scores(folder.scores)
    members, projection = _members(folder)
    branches, trunks = _described(members)
    size = sum(b.head.size(t.width) for b, t in zip(branches, trunks, strict=True))
    kept = projection.directions.shape[1] if projection else None
    plan = members[0].plan
    config = ModelConfig(
        dmlray=__version__,
        dimension=kept or size,
        branches=branches,
        projection=kept,
        precision=plan.budget.precision,
        max_pixels=plan.data.max_pixels,
        scores=scores,
        settings=_settings(plan),
    )
    network = _filled(Network(config, trunks), members, projection, folder)
    return Model(config, network)


def _filled(
    network: Network,
    members: Sequence[Member],
    projection: Projection | None,
    folder: RunFolder,
) -> Network:
    for number, member in enumerate(members):
        _fill_branch(network.branches[number], member)
    if projection:
        _fill_projection(network, projection, folder)
    return network


def members_behind(run: Path) -> list[Member]:
    """The trainings whose embeddings the finished run in folder `run` lays side by side.

    Raises:
        DmlrayError: If it is not finished, or one of its files is damaged.
    """
    return _members(RunFolder(run))[0]


def _members(folder: RunFolder) -> tuple[list[Member], Projection | None]:
    return read_merged(folder) if folder.kind() == "merge" else (members_of(folder.path), None)


def _described(members: Sequence[Member]) -> tuple[list[Branch], list[Trunk]]:
    """The branch of each member, and its trunk with tensors that are to be filled."""
    branches, trunks = [], []
    for member in members:
        plan, backbone = member.plan, member.plan.backbone
        trunk = backbones.build(backbone.name, "none", backbone.pooling)
        method = methods.load(plan.method.name)
        head = method.embedding_head(plan.method.config, member.scores.embedding_size)
        transform, weight = plan.data.transform, member.weight
        branches.append(branch_of(trunk, backbone.name, transform, head, weight))
        trunks.append(trunk)
    return branches, trunks


def _fill_branch(branch: torch.nn.Module, member: Member) -> None:
    """Take from the member's checkpoint what the branch has; a loss and its classes stay there."""
    learned = chosen_weights(member.plan, member.folder)
    names = {name: name.removeprefix("head.") for name in branch.state_dict()}
    found = {own: learned[name] for own, name in names.items() if name in learned}
    fill(branch, found, str(member.folder))


def _fill_projection(network: Network, projection: Projection, folder: RunFolder) -> None:
    assert network.projection is not None
    tensors: dict[str, Tensor] = {"mean": projection.mean, "directions": projection.directions}
    fill(network.projection, tensors, str(folder.merged))


def _settings(plan: Experiment) -> dict[str, Any]:
    """The plan without paths of this machine."""
    document = plan.document()
    document["data"]["root"] = None
    if is_file(plan.backbone.weights):
        document["backbone"]["weights"] = Path(plan.backbone.weights).name
    if teacher := document["method"].get("teacher"):
        document["method"]["teacher"] = Path(teacher).name
    return document
