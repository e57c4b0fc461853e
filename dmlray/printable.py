"""Untrusted text, escaped for a terminal, a log or a page."""

import re
import reprlib
import textwrap
from typing import Any

# C0, DEL, C1, line separators, marks that reorder or hide text, lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


def printable(text: str) -> str:
    r"""Escape control characters, as `\x1b`; the result is one line."""
    return _CONTROL.sub(_escaped, text)


def wrapped(line: str, width: int) -> list[str]:
    """Escape a line and wrap it between words at `width` columns; no word is cut."""
    shown = printable(line)
    if len(shown) <= width:
        return [shown]
    return textwrap.wrap(
        shown, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def shortened(value: Any) -> str:
    """Return the `repr` of a value, cut in the middle if it is long."""
    text = _REPR.repr(value)
    return text if len(text) <= 200 else f"{text[:98]}...{text[-98:]}"


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
