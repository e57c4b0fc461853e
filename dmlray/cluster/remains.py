"""What an earlier session left of a member: kept, scored again, or begun anew."""

import json
import shutil
from pathlib import Path

from dmlray.errors import ConfigError, DataError, RunError
from dmlray.learn.members import members_of
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.voices import differences
from dmlray.reporting.display import Display


def take_up(plan: Ensemble, folder: RunFolder, display: Display) -> None:
    """Make every member's folder one that can be kept or gone on with.

    Raises:
        ConfigError: If a member was begun by another plan.
    """
    for index in range(plan.size):
        member = folder.member(index)
        if not any(map(Path.exists, _record(member))):
            continue  # nothing was begun
        try:
            begun = read_experiment(member.plan("experiment")).experiment
            _read_zero_shot(member)
        except (ConfigError, DataError) as error:
            begin_anew(member)
            reason = " ".join(str(error).split())
            display.say(f"member {index}: {reason}; trained again from its start")
            continue
        _check_begun(member, begun, plan.member(index))
        _drop_damaged_results(member, display)


def begin_anew(member: RunFolder) -> None:
    """Forget all of a member; nothing is there that its training would not make again."""
    shutil.rmtree(member.path)


def _record(member: RunFolder) -> tuple[Path, ...]:
    """What a begun member has one of, at least."""
    return member.plan("experiment"), member.last_checkpoint, member.scores


def _read_zero_shot(member: RunFolder) -> None:
    """Only a training's start can make it again."""
    try:
        if member.zero_shot.exists():
            json.loads(member.zero_shot.read_bytes())
    except ValueError as error:
        raise DataError(f"{member.zero_shot}: is damaged ({error})") from None


def _check_begun(member: RunFolder, begun: Experiment, plan: Experiment) -> None:
    """A member that was begun by another plan must not be mixed with the rest."""
    strange = differences(begun.document(), plan.document())
    if strange:
        allowed = "Allowed: the plan that it was begun with, or a new folder (--out)"
        raise ConfigError(str(member), [f"was begun with {', '.join(strange)}. {allowed}"])


def _drop_damaged_results(member: RunFolder, display: Display) -> None:
    """Results that cannot be read are made again from the checkpoint."""
    if not member.scores.exists():
        return
    try:
        members_of(member.path)[0].embeddings()
    except (RunError, DataError):
        display.say(f"{member.path}: its results are damaged; made again")
        member.scores.unlink()
