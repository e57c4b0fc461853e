"""The teacher of the trainings of a run: loaded before the run begins, embeds once it has."""

from collections.abc import Sequence

from dmlray import methods
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError
from dmlray.inference.load import load_model
from dmlray.inference.model import Model
from dmlray.inference.teacher import write_teacher
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display

_KEY = "method.teacher"


def load_teacher(plans: Sequence[Experiment], folder: RunFolder | None = None) -> Model | None:
    """The one teacher of `plans`; None if none of them has one, or `folder` has its vectors.

    Raises:
        DmlrayError: If it is missing, no finished run or model, or they name several.
    """
    configs = [plan.method.config for plan in plans if methods.has_teacher(plan.method.config)]
    paths = {getattr(config, "teacher") for config in configs}  # noqa: B009  # of some methods
    allowed = "Allowed: the folder of a finished run or of an exported model"
    if None in paths:
        raise ConfigError(_KEY, [f"is missing. {allowed}"])
    if len(paths) > 1:
        raise ConfigError(_KEY, [f"{len(paths)} teachers in one run. Allowed: the same for all"])
    if not paths or (folder and folder.teacher.exists()):
        return None
    return load_model(paths.pop())


def teach(teacher: Model | None, dataset: Dataset, folder: RunFolder, display: Display) -> None:
    """Write the teacher's vectors of the training images into a run that has begun."""
    if teacher:
        write_teacher(teacher, dataset, folder, display.count("the teacher's vectors"))
