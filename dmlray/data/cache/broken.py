"""Leave out broken images if the user allows it: always with a remark, never a whole class."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.errors import DataError

NAMED = 3  # files that the remark names


def leave_out(dataset: Dataset, reasons: Mapping[str, str]) -> Dataset:
    """Remove broken files (file -> reason) from a data set; classes and their split stay.

    Raises:
        DataError: If a class loses all its images, or without roles a test class all but one.
    """
    if not reasons:
        return dataset
    intact = np.array([file not in reasons for file in dataset.files])
    labels = dataset.labels[intact]
    before, after = (
        np.bincount(values, minlength=len(dataset.classes)) for values in (dataset.labels, labels)
    )
    tested = np.arange(len(before)) >= dataset.train_classes
    fewest = np.where(tested & (dataset.roles is None), 2, 1)
    lost = np.flatnonzero((after < before) & (after < fewest))
    if len(lost):
        left, name = after[lost[0]], dataset.classes[lost[0]]
        side = "test" if tested[lost[0]] else "training"
        raise DataError(
            f"{dataset.root}: data.skip_broken leaves {left} of {before[lost[0]]} images of {side}"
            f" class {name!r}. Expected at least 1 image of each training class and 2 of each test"
            f" class; {len(lost)} classes have fewer."
        )
    first = ", ".join(list(reasons)[:NAMED])
    more = ", ..." if len(reasons) > NAMED else ""
    remark = f"{len(reasons)} of {len(dataset)} images left out as broken: {first}{more}"
    return replace(
        dataset,
        files=tuple(file for file in dataset.files if file not in reasons),
        labels=labels,
        remarks=(*dataset.remarks, remark),
        listed=dataset,
        roles=dataset.roles and dataset.roles.of(intact),
        categories=None if dataset.categories is None else dataset.categories[intact],
    )
