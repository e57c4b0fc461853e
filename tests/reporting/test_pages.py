"""Pages escape all that comes from files, and refuse a value that is missing."""

import pytest
from jinja2 import UndefinedError

from dmlray.reporting.pages import render

EVIL = "<script>alert('1')</script>\n\x1b[2J\u202e&\"\udcff"
ESCAPED = (
    "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"
    + r"\n\x1b[2J\u202e"
    + "&amp;&#34;"
    + r"\udcff"
)


def test_markup_and_control_characters_in_values_are_escaped() -> None:
    text = render("page.html", title=EVIL)
    assert f"<title>{ESCAPED}</title>" in text
    assert f"<h1>{ESCAPED}</h1>" in text
    assert "<script" not in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render("page.html")
