"""Results as tables: of pandas, and of a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dmlray.printable import printable

if TYPE_CHECKING:
    import pandas


class Tabular:
    """A result that is shown as a table in a notebook and becomes a data frame."""

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows, each with the same columns."""
        raise NotImplementedError

    def remarks(self) -> Sequence[str]:
        """Return lines that belong below the table."""
        return ()

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas data frame.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pandas  # optional

        return pandas.DataFrame.from_records(list(self.records()))

    def _repr_html_(self) -> str:
        rows = self.records()
        head = "".join(f"<th>{_cell(name)}</th>" for name in (rows[0] if rows else ()))
        body = "".join(
            f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>"
            for row in rows
        )
        below = "".join(f"<p>{_cell(line)}</p>" for line in self.remarks())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: Any) -> str:
    """A value as text in which nothing is markup or a control character."""
    text = f"{value:.4g}" if isinstance(value, float) else f"{value}"
    return html.escape(printable(text))
