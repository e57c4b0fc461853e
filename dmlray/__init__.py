"""Ensembles and hyperparameter search for deep metric learning, on Ray."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_LAZY = {"Model": "dmlray.inference.model", "load_model": "dmlray.inference.load"}
__all__ = ["Model", "__version__", "load_model"]

if TYPE_CHECKING:
    from dmlray.inference.load import load_model
    from dmlray.inference.model import Model


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
