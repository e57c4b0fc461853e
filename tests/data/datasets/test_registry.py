"""Data sets by name: one file each, found by its SPEC."""

import hashlib
import re
from pathlib import Path

import pytest

from dmlray.data.datasets import registry
from dmlray.data.datasets.spec import specs
from dmlray.errors import ConfigError


def test_each_data_set_is_listed_once_with_a_line_of_its_own() -> None:
    known = ["cars", "csv", "cub", "demo", "folder", "huggingface", "inshop", "letters", "parquet"]
    assert registry.names() == [*known, "sop"]
    assert len({registry.about(name) for name in registry.names()}) == len(registry.names())


def test_an_unknown_name_and_a_split_that_cannot_be_chosen_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'cup'\. Allowed: cars, csv, cub"):
        registry.load("cup", None)
    with pytest.raises(ConfigError, match=r"given is not for cub.* a data\.name of csv, folder"):
        registry.find("cub", Path("x"), "given")


def test_all_classes_of_a_published_data_set_may_train() -> None:
    half, whole = (registry.load("demo", None, split) for split in ("classes", "all"))
    assert 0 < half.train_classes < len(half.classes)
    assert whole.train_classes == len(whole.classes) == len(half.classes)
    assert whole.fingerprint == half.fingerprint


@pytest.mark.parametrize("dataset", [name for name, spec in specs().items() if spec.source])
def test_public_archives_are_complete(dataset: str) -> None:
    source = registry.source(dataset)
    algorithm, _, digest = source.checksum.partition(":")
    assert re.fullmatch(r"[0-9a-f]+", digest)
    assert len(digest) == 2 * hashlib.new(algorithm).digest_size
    assert source.file in source.url


def test_cars_and_unknown_sets_say_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"car_ims\.tgz and cars_annos\.mat"):
        registry.source("cars")
    with pytest.raises(ConfigError, match=r"'demo' has no public URL\. Allowed: cub, sop"):
        registry.source("demo")
