"""A model as a teacher: its vectors of the training images, for the trainings of a run."""

import torch

from dmlray.data.dataset import Dataset
from dmlray.data.folds import train_subset
from dmlray.evaluation.pca import principal_rows
from dmlray.inference.model import Model, Progress
from dmlray.learn.teacher import write_vectors
from dmlray.plans.run_folder import RunFolder


def write_teacher(
    model: Model, dataset: Dataset, folder: RunFolder, progress: Progress | None = None
) -> None:
    """Embed the training images of `dataset` as `model` cuts them, into the run in `folder`.

    Only training classes are read. The rows are rotated to their principal directions.

    Raises:
        DmlrayError: If an image cannot be read or a vector is not finite.
    """
    images = [dataset.root / dataset.files[row] for row in train_subset(dataset).rows]
    rows = torch.from_numpy(model.embed(images, progress=progress))
    model.network.cpu()  # a training in another process needs the GPU's memory
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    write_vectors(folder.teacher, principal_rows(rows), dataset, remark(model, dataset))


def remark(model: Model, dataset: Dataset) -> str:
    """What a score of a student must say of its teacher."""
    networks, scores = len(model.config.branches), model.scores
    what = f"{networks} networks" if networks > 1 else "one network"
    if scores is None:
        return f"learned from teacher {model.fingerprint} ({what}, not trained by dmlray)"
    known = scores.dataset_fingerprint == dataset.fingerprint
    where = "these images" if known else "OTHER IMAGES, PERHAPS OF THE TEST CLASSES"
    chosen = f"{scores.method}, selection {scores.selection}, trained on {where}"
    return f"learned from teacher {model.fingerprint} ({what}, {chosen})"
