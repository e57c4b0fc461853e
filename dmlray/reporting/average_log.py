"""Log the averages of a cross-validation or of repeats, whose trainings log themselves."""

from contextlib import closing

from dmlray.plans.config_sources import flatten
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.loggers import open_logger
from dmlray.scores import Scores


def log_averages(folder: RunFolder, plan: Experiment, scores: Scores) -> None:
    """Log means and half-widths with the loggers of the plan; the step is the number of trainings.

    Args:
        folder: Of the cross-validation or the repeats.
        plan: Experiment that was trained.
        scores: Averages over its trainings.
    """
    means = {f"test/{name}": value for name, value in scores.metrics.items()}
    others = {f"test/{name}_half_width": value for name, value in scores.half_width.items()}
    others |= {f"test/concatenated/{name}": value for name, value in scores.concatenated.items()}
    with closing(open_logger(folder, plan.loggers)) as logger:
        logger.scalars(scores.n, means | others)
        logger.hparams(flatten(plan.document()), means)
