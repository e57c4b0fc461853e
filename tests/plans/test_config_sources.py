from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.config_sources import flatten, nest, read_file, read_overrides


def test_a_file_becomes_dotted_keys_that_remember_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("method:\n  name: dreml\nseed: 3\nlist: [1, 2]\n")
    source_config = read_file(path)
    assert source_config.values == {"method.name": "dreml", "seed": 3, "list": [1, 2]}
    assert source_config.location("seed") == "line 3"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1", "line 1  is not YAML"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("a: 1\nb: 2\na: 3\n", "line 3  a: duplicate key, first on line 1"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_is_no_mapping_of_yaml_is_told_in_one_sentence(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_file(path)


def test_overrides_read_yaml_values() -> None:
    values = read_overrides(["a=1", "b.c=[1, 2]", "d=null", "e=text=more"]).values
    assert values == {"a": 1, "b.c": [1, 2], "d": None, "e": "text=more"}


@pytest.mark.parametrize("word", ["novalue", "=1", "a=[1"])
def test_an_override_without_key_or_value_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="Allowed: key=value"):
        read_overrides([word])


def test_nesting_and_flattening_are_inverse() -> None:
    document = {"a": {"b": 1, "c": {"d": [1]}}, "e": None}
    assert nest(flatten(document)) == document
