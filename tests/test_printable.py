import pytest

from dmlray.errors import ConfigError, DataError
from dmlray.printable import printable, shortened, wrapped

CONTROL = ["\x00", "\x1b", "\x07", "\n", "\r", "\t", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028"]
CONTROL += ["\u200f", "\udc80", "\U000e0041"]


@pytest.mark.parametrize("character", CONTROL)
def test_control_characters_are_escaped_once(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    assert printable(shown) == shown


def test_names_in_any_script_are_kept() -> None:
    for name in ("é", "日本語　", "क्‍ष", "👩‍🔬", r"a\b"):
        assert printable(name) == name


@pytest.mark.parametrize("value", ["x" * 5_000_000, [[["y" * 100] * 100] * 100], 10**1000])
def test_a_long_value_is_cut_in_the_middle(value: object) -> None:
    assert len(shortened(value)) <= 200
    assert "..." in shortened(value)


@pytest.mark.parametrize("width", [80, 50, 40, 20, 5])
def test_a_line_is_broken_only_between_words(width: int) -> None:
    line = "optimizer.weight_decay           0.000123456 line 12 of the file"
    parts = wrapped(line, width)
    assert " ".join(" ".join(parts).split()) == " ".join(line.split())
    assert all(len(part) <= width or len(part.split()) == 1 for part in parts)


def test_a_name_cannot_add_lines_to_an_error() -> None:
    assert str(DataError("a\n  line 2  b")) == r"a\n  line 2  b"
    assert str(ConfigError("f\n", ["a\n", "b"])) == "f\\n: 2 problems\n  a\\n\n  b"


def test_an_error_is_of_bounded_length() -> None:
    text = str(ConfigError("f", ["x" * 10_000] * 1000))
    assert len(text) < 300_000
    assert text.endswith("and 950 more")
