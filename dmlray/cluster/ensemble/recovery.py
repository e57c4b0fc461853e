"""What an earlier session left of a member: kept, scored again, or begun anew."""

import shutil
from pathlib import Path

from dmlray.errors import ConfigError, DataError, RunError
from dmlray.plans.config_sources import differences
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.results.finished_runs import training_of
from dmlray.scores import read_zero_shot


def recover_members(plan: Ensemble, folder: RunFolder, display: Display) -> None:
    """Make every member's folder one that can be kept or gone on with.

    Raises:
        ConfigError: If a member was begun by another plan.
    """
    for index in range(plan.size):
        member = folder.member(index)
        if member.path.exists() and not member.path.is_dir():
            raise ConfigError(str(member), ["is no folder. Allowed: delete it and resume the run"])
        if not any(map(Path.exists, _record(member))):
            continue  # nothing was begun
        try:
            begun = read_experiment(member.plan("experiment")).experiment
            read_zero_shot(member.zero_shot)  # only a training's start can make it again
        except (ConfigError, DataError) as error:
            reset_member(member)
            reason = " ".join(str(error).split())
            display.log(f"member {index}: {reason}; trained again from its start")
            continue
        _check_started(member, begun, plan.member(index))
        _drop_damaged_results(member, display)


def reset_member(member: RunFolder) -> None:
    """Forget all of a member; nothing is there that its training would not make again."""
    _delete(member.path)


def _record(member: RunFolder) -> tuple[Path, ...]:
    """What a begun member has one of, at least."""
    return member.plan("experiment"), member.last_checkpoint, member.scores


def _check_started(member: RunFolder, begun: Experiment, plan: Experiment) -> None:
    """A member that was begun by another plan must not be mixed with the rest."""
    strange = differences(begun.document(), plan.document())
    if strange:
        allowed = "Allowed: the plan that it was begun with, or a new folder (`out`)"
        raise ConfigError(str(member), [f"was begun with {', '.join(strange)}. {allowed}"])


def _drop_damaged_results(member: RunFolder, display: Display) -> None:
    """Results that cannot be read are made again from the checkpoint."""
    if not member.scores.exists():
        return
    try:
        training_of(member).embeddings()
    except (RunError, DataError):
        display.log(f"{member.path}: its results are damaged; made again")
        _delete(member.scores)
        _delete(member.embeddings)


def _delete(path: Path) -> None:
    """Delete a file, a link, or a folder that stands in the place of either."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
