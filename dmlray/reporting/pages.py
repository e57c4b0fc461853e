"""HTML pages from the templates in html/: each is one file that loads nothing."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlray.printable import printable
from dmlray.scores import percent

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("html")


def render(template: str, **values: object) -> str:
    """Fill in a template of html/; markup and control characters in the values are escaped."""
    return _environment().get_template(template).render(values)


def script(name: str) -> str:
    """Read a script of html/; `script_hash` allows a page to run this one and no other."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _script_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def png_address(content: bytes) -> str:
    """Encode a PNG as an address that holds the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    environment.globals["script_hash"] = _script_hash
    return environment


def _printable(value: Any) -> Any:
    """Escape control characters of each value, except in what is a part of a template itself."""
    return printable(value) if type(value) is str else value
