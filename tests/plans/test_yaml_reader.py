import math
from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.config_sources import read_file, read_overrides
from dmlray.plans.yaml_reader import compose, plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("=", "="),
        ("<<", "<<"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("null", None),
        ("-.inf", -math.inf),
        ("'1'", "1"),
        ("{a: [1, {b: null}]}", {"a": [1, {"b": None}]}),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_read_as_yaml_12_has_them(text: str, value: object) -> None:
    node = compose(text)
    assert node is not None
    assert plain(node) == value


def laughs(levels: int, start: str = "[x]") -> str:
    lines = [f"a0: &a0 {start}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


def test_aliases_of_a_few_values_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("a: &a [1, 2]\nb: *a\nc: &c {d: 3}\ne: *c\n")
    assert read_file(file).values == {"a": [1, 2], "b": [1, 2], "c.d": 3, "e.d": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: !!int 3", "line 1  the tag tag:yaml.org,2002:int is not allowed"),
        ("\nseed: !!timestamp x", "line 2  the tag"),
        ("seed: !!python/object/apply:os.system [id]", "the tag"),
        ("seed: !foo bar", "the tag !foo"),
        ("seed: !!binary aGk=", "the tag"),
        ("a: !!set {x}", "the tag"),
        ("seed: &a [*a]", "a is inside what it stands for"),
        ("a: &a {b: *a}", "a is inside what it stands for"),
        ("a: *b", "undefined alias"),
        (laughs(9), "aliases stand for more than"),
        (laughs(9, "{x: 1}"), "aliases stand for more than"),
        (f"a: {'[' * 1500}{']' * 1500}", "nested more than 32 levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(40)), "nested more than 32 levels"),
        ("{? [a] : 1}", "a list or a mapping is no key"),
        ("a: [{? {b: c} : 1}]", "a list or a mapping is no key"),
        ("? \n: 1", "is no key"),
        ("a..b: 1", "is no key"),
        (".a: 1", "is no key"),
        ("a: {b: 1}\na: {c: 1}", "line 2  a: duplicate key, first on line 1"),
        ("{a: {b: 1}, a: {c: 1}}", "a: duplicate key"),
        ("a: {b: 1, b: 2}", "a.b: duplicate key"),
        ("a.b: 1\na: {b: 2}", "a.b: duplicate key"),
        ("a: [{b: 1, b: 2}]", "a duplicate key"),
        ("a: 1\n---\nb: 2", "another document"),
        ("", "must be a mapping"),
        ("# nothing", "must be a mapping"),
        ("[1]", "must be a mapping"),
        ('a: "\\UFFFFFFFF"', "is not YAML"),
        ("a: \x1b", "line 1  is not YAML"),
        ("\n".join(f"k{n}: 1" for n in range(3000)), "has 3,000 keys"),
    ],
)
def test_what_is_not_read_is_one_sentence(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_file(file)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_of_legal_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    for content, complaint in (
        (b"a: \xff", "not UTF-8"),
        (b"a: " + b"x" * (1 << 20), "Allowed: 1 MiB"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=complaint):
            read_file(file)


@pytest.mark.parametrize("word", ["seed=!!int 0x", "seed=!!bool maybe", "seed=!!int ''", "a=[1"])
def test_an_override_that_is_no_yaml_is_refused_where_no_text_is_taken(word: str) -> None:
    with pytest.raises(ConfigError, match="Allowed: key=value"):
        read_overrides([word])


@pytest.mark.parametrize("word", ["=x", "a..b=1", ".a=1", "a.=1", ".=1", "x"])
def test_an_override_needs_a_key(word: str) -> None:
    with pytest.raises(ConfigError, match=r"is not allowed\. Allowed: key=value"):
        read_overrides([word])
