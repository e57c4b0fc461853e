"""Check the roles of a listed data set, and describe them for its scores."""

from collections.abc import Callable

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.errors import DataError


def check(dataset: Dataset, where: Callable[[int], str]) -> None:
    """Check that the test classes can be searched, and that no training class is a distractor.

    Args:
        dataset: The listed data set, with or without roles.
        where: Maps a row of the data set to its location for a message.

    Raises:
        DataError: If the test side has no query, an empty gallery or no query with a match, or a
            training class is only in the gallery.
    """
    if dataset.roles is None:
        return
    if _tested(dataset).any():
        _check_tested(dataset, where)
    _check_distractors(dataset, where)


def _check_tested(dataset: Dataset, where: Callable[[int], str]) -> None:
    assert dataset.roles is not None
    tested = _tested(dataset)
    queries, gallery = dataset.roles.queries & tested, dataset.roles.gallery & tested
    first, count = where(int(tested.argmax())), int(tested.sum())
    if not queries.any():
        problem = f"none of the {count} test images is a query"
        raise DataError(f"{first}: {problem}. Expected the role query or both of at least one.")
    if not gallery.any():
        problem = f"the gallery is empty, as all {count} test images are queries only"
        raise DataError(f"{first}: {problem}. Expected the role gallery or both of some.")
    if not (dataset.with_match & tested).any():
        other = " and of another group" if dataset.roles.groups is not None else ""
        problem = f"this query and all {queries.sum()} have no match"
        expected = f"an image of a query's label{other} in the gallery"
        raise DataError(f"{where(int(queries.argmax()))}: {problem}. Expected {expected}.")


def remarks(dataset: Dataset) -> list[str]:
    """Say how many test images have which role, and which queries do not count."""
    if dataset.roles is None:
        return []
    tested = _tested(dataset)
    queries, gallery = dataset.roles.queries & tested, dataset.roles.gallery & tested
    searched = np.isin(dataset.labels, dataset.labels[queries])
    distractors = int((gallery & ~searched).sum())
    details = f" ({distractors} of labels that no query has)" if distractors else ""
    if dataset.roles.groups is not None:
        details += "; images of equal label and group are not compared"
    searches = f"{queries.sum()} queries are searched for in {gallery.sum()} gallery images"
    found = [f"{searches}{details}"] if tested.any() else []
    for side, part in (("test", tested), ("training", ~tested)):
        wanted = dataset.roles.queries & part
        lone = wanted & ~dataset.with_match
        if lone.any():
            first = dataset.files[int(lone.argmax())]
            counted = f"{lone.sum()} of {wanted.sum()} {side} queries"
            found.append(f"{counted} have no match in the gallery and do not count, first {first}")
    return found


def _tested(dataset: Dataset) -> np.ndarray:
    return np.asarray(dataset.labels >= dataset.train_classes)


def _check_distractors(dataset: Dataset, where: Callable[[int], str]) -> None:
    """Refuse training classes that are only in the gallery: no class to learn, as in a fold."""
    assert dataset.roles is not None
    asked = np.zeros(len(dataset.classes), dtype=bool)
    asked[dataset.labels[dataset.roles.queries]] = True
    distractors = np.flatnonzero(~asked[: dataset.train_classes])
    if not len(distractors):
        return
    row = int((dataset.labels == distractors[0]).argmax())
    raise DataError(
        f"{where(row)}: training class {dataset.classes[distractors[0]]!r} is only in the gallery,"
        f" as are {len(distractors)} of {dataset.train_classes}. Expected distractors on the test"
        " side, and the role query or both of an image of each training class."
    )
