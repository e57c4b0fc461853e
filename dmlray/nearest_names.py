"""Suggest known names for an unknown one."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """Return a suggestion of the nearest known names, to end a message; empty if none is near.

    Args:
        word: The unknown name.
        known: Among equally near names, earlier ones come first.
        most: Maximal number of suggested names.
    """
    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def nearest_or_all(word: str, known: Iterable[str], most: int = 1) -> str:
    """Return a suggestion of the nearest known names, or list all if none is near."""
    known = list(known)
    return did_you_mean(word, known, most) or f" Allowed: {', '.join(sorted(known))}."
