"""Recover members of an earlier session: keep, score again, or start again."""

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
    """Leave in every member's folder only what can be kept or resumed.

    Raises:
        ConfigError: If a member was started with another plan.
    """
    for index in range(plan.size):
        member = folder.member(index)
        if member.path.exists() and not member.path.is_dir():
            problem = "is not a folder. Allowed: delete it and resume the run"
            raise ConfigError(str(member), [problem])
        if not any(map(Path.exists, _traces(member))):
            continue  # not started
        try:
            begun = read_experiment(member.plan("experiment")).experiment
            read_zero_shot(member.zero_shot)  # only written at the start of a training
        except (ConfigError, DataError) as error:
            reset_member(member)
            reason = " ".join(str(error).split())
            display.log(f"member {index}: {reason}; trained again from its start")
            continue
        _check_started(member, begun, plan.member(index))
        _drop_damaged_results(member, display)


def reset_member(member: RunFolder) -> None:
    """Delete all files of a member, which its training creates again."""
    _delete(member.path)


def _traces(member: RunFolder) -> tuple[Path, ...]:
    """Return files of which a started member has at least one."""
    return member.plan("experiment"), member.last_checkpoint, member.scores


def _check_started(member: RunFolder, begun: Experiment, plan: Experiment) -> None:
    """Refuse a member that was started with another plan."""
    changes = differences(begun.document(), plan.document())
    if changes:
        allowed = "Allowed: the plan that it was begun with, or a new folder (`out`)"
        raise ConfigError(str(member), [f"was begun with {', '.join(changes)}. {allowed}"])


def _drop_damaged_results(member: RunFolder, display: Display) -> None:
    """Delete unreadable results, which are then computed again from the checkpoint."""
    if not member.scores.exists():
        return
    try:
        training_of(member).embeddings()
        training_of(member).validation_embeddings()
    except (RunError, DataError):
        display.log(f"{member.path}: its results are damaged; computed again")
        _delete(member.scores)
        _delete(member.embeddings)
        _delete(member.validation_embeddings)


def _delete(path: Path) -> None:
    """Delete a file, a link, or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
