"""Write docs/settings.md from the models: `python -m dmlray.reporting.settings_reference FILE`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from dmlray import methods
from dmlray.atomic_files import write_text
from dmlray.plans.experiment import Experiment
from dmlray.plans.fields import walk
from dmlray.plans.search_settings import SearchSettings
from dmlray.plans.validation_errors import allowed_values
from dmlray.reporting.settings_table import value_text

_HEAD = """# Settings

Generated from the code by `make docs`. `dmlray show FILE` lists the settings of a file, each with
its value and origin.

Any setting changes in a file, with `KEY=VALUE` on the command line, or in `overrides` in Python."""
_COLUMNS = "| setting | default | allowed | meaning |\n|---|---|---|---|"


def settings_reference() -> str:
    """Return the page as Markdown."""
    return "\n".join((_HEAD, *_experiment(), *_methods(), *_search())) + "\n"


def _experiment() -> Iterator[str]:
    yield "\n## An experiment\n"
    yield f"`method.name`: {', '.join(f'`{name}`' for name in methods.names())}.\n"
    yield from _table(walk(Experiment))


def _methods() -> Iterator[str]:
    for name in methods.names():
        yield f"\n## Method `{name}`\n"
        yield from _table(walk(methods.load(name).Config, "method."))


def _search() -> Iterator[str]:
    yield "\n## A search\n"
    yield "Beside these a search has `experiment`, `space` and `set`.\n"
    yield from _table(walk(SearchSettings))


def _table(fields: Iterable[tuple[str, FieldInfo]]) -> Iterator[str]:
    yield _COLUMNS
    for key, field in fields:
        cells = (f"`{key}`", f"`{_default(field)}`", allowed_values(field), field.description or "")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    return value_text(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), settings_reference())
