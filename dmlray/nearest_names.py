"""The nearest known spelling of a name that is unknown."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """Ask for the nearest of the known names, as the end of a message; empty if none is near.

    Args:
        known: Of equally near ones the earlier come first.
        most: How many names are offered.
    """
    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def nearest_or_all(word: str, known: Iterable[str], most: int = 1) -> str:
    """Ask for the nearest of the known names, or list them all where none is near."""
    known = list(known)
    return did_you_mean(word, known, most) or f" Allowed: {', '.join(sorted(known))}."
