"""DREML's draw of meta-classes, against the authors' own."""

import random
from pathlib import Path

import numpy as np
import pytest

from dmlray.data.meta_classes import assign_meta_classes, cap
from tests.golden_vectors import files, load


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_meta_ids*.npz"))
def test_deals_as_the_authors_do(path: Path) -> None:
    golden = load(path)
    for number in range(int(golden["num_cases"])):
        case = f"case{number}_"
        source = random.Random(int(golden[f"{case}seed"]))
        classes = int(golden[f"{case}num_classes"])
        meta_classes = int(golden[f"{case}meta_class_size"])
        learners = range(int(golden[f"{case}ensemble_size"]))
        drawn = [assign_meta_classes(classes, meta_classes, source) for _ in learners]
        np.testing.assert_array_equal(drawn, golden[f"{case}ids"])
        counts = [np.bincount(ids, minlength=meta_classes) for ids in drawn]
        np.testing.assert_array_equal(counts, golden[f"{case}counts"])


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_meta_dataset*.npz"))
def test_caps_large_classes_as_the_authors_do(path: Path) -> None:
    golden = load(path)
    sizes = dict(zip(golden["class_names_in_file_order"], golden["class_sizes"], strict=True))
    names = sorted(sizes)
    np.testing.assert_array_equal(names, golden["sorted_class_order"])
    source = random.Random(int(golden["seed"]))
    meta_classes = int(golden["meta_class_size"])
    ids = assign_meta_classes(len(names), meta_classes, source)
    np.testing.assert_array_equal(ids, golden["ids"])
    images = [[f"{name}/{number:04d}.jpg" for number in range(sizes[name])] for name in names]
    kept = cap(images, int(golden["cap"]), source)
    # The authors list one meta-class after another.
    listed = [
        (image, meta_class)
        for meta_class in range(meta_classes)
        for dealt, group in zip(ids, kept, strict=True)
        if dealt == meta_class
        for image in group
    ]
    assert [image for image, _ in listed] == golden["image_names"].tolist()
    assert [meta_class for _, meta_class in listed] == golden["image_meta_labels"].tolist()


@pytest.mark.parametrize(("classes", "meta_classes"), [(100, 12), (12, 12), (7, 12), (5, 1)])
def test_meta_classes_differ_by_at_most_one_class(classes: int, meta_classes: int) -> None:
    counts = np.bincount(
        assign_meta_classes(classes, meta_classes, random.Random(0)), minlength=meta_classes
    )
    assert counts.sum() == classes
    assert np.ptp(counts) <= 1
