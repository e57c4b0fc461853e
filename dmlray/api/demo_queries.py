"""The demo's last stage: the merged model leaves its run and finds icons of unseen classes."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from dmlray.atomic_files import write_text
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset
from dmlray.data.unseen import test_subset
from dmlray.inference.embed_files import embed
from dmlray.inference.export import export
from dmlray.inference.load import load_model
from dmlray.inference.search import query
from dmlray.learn.class_split import load_dataset
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.reporting.query_page import query_page

_QUERIES, _NEIGHBOURS = 6, 8


def query_icons(
    run: RunFolder, folder: RunFolder, plan: Experiment, display: Display
) -> tuple[Path, Path]:
    """Export the model of a finished `run`, embed the test icons and query it with some of them.

    The queries are not among the icons that are searched.

    Args:
        run: Whose model is used.
        folder: Where model, vectors and page lie; what is there already is kept.
        plan: Experiment of the data set.
        display: Where progress is shown.

    Returns:
        The page, and the folder of the model.
    """
    exported, vectors, page = (folder.path / name for name in ("model", "vectors", "query.html"))
    if not exported.exists():  # it is written whole or not at all
        export(run.path, exported)
    model, dataset = load_model(exported), load_dataset(plan)
    subset = test_subset(dataset)
    chosen = _spread(subset)
    others = np.setdiff1d(subset.rows, chosen)
    embed(model, _table(dataset, others), vectors, progress=display.count_images("embedding icons"))
    images = [dataset.root / dataset.files[row] for row in chosen]
    found = query(model, vectors, images, _NEIGHBOURS)
    write_text(page, query_page(images, found, model.protocol))
    return page, exported


def _spread(subset: Subset) -> np.ndarray:
    """The first image of some classes, evenly spread and not chosen by how well they are found."""
    classes = np.linspace(0, len(subset.classes) - 1, _QUERIES).round()
    return np.array([subset.rows[subset.labels == label][0] for label in classes])


def _table(dataset: Dataset, rows: np.ndarray) -> pa.Table:
    return pa.table({
        "path": [str(dataset.root / dataset.files[row]) for row in rows],
        "label": [dataset.classes[dataset.labels[row]] for row in rows],
    })  # fmt: skip
