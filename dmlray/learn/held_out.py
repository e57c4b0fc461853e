"""Thresholds of a training: chosen on the classes that it held out, checked on the test classes."""

from torch import Tensor

from dmlray.evaluation.comparisons import Comparisons
from dmlray.evaluation.verification import Verification, verify
from dmlray.learn.retrieval_task import task_of
from dmlray.learn.trainer import Training
from dmlray.scores import Selection

_REASONS: dict[Selection, str] = {
    "last": "every training class was trained on, so that none is left to choose a threshold on; "
    "protocol.selection=validation holds some out",
    "best_on_test": "epochs were chosen on the test classes and no training class was held out, "
    "and a threshold is never chosen on test classes; protocol.selection=validation holds some out",
}


def no_threshold(training: Training) -> str:
    """Why a training has no threshold; empty if it held classes out."""
    return _REASONS.get(training.plan.protocol.selection, "")


def held_out_embeddings(training: Training) -> Tensor | None:
    """Unit embeddings (N, D) of the images that chose the epoch; None if they are no held-out ones.

    All workers of a training call this together.
    """
    validation = training.split.validation
    if validation is None or no_threshold(training):
        return None
    return training.embed(training.learner.embed, validation)


def verified(training: Training, held_out: Tensor | None, test: Comparisons) -> Verification | None:
    """Thresholds by the embeddings of `held_out_embeddings`, checked on the test comparisons."""
    if held_out is None:
        return None
    assert training.split.validation is not None
    return verify(Comparisons([held_out], task_of(training.split.validation)), test)
