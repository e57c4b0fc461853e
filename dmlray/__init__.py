"""Ensembles and hyperparameter search for deep metric learning, on Ray."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"
_LAZY = {
    "Model": "dmlray.inference.model",
    "embed": "dmlray.inference.embed_files",
    "export": "dmlray.inference.export",
    "load_model": "dmlray.inference.load",
    "query": "dmlray.inference.search",
}
__all__ = ["Model", "__version__", "embed", "export", "load_model", "query"]

if TYPE_CHECKING:
    from dmlray.inference.embed_files import embed
    from dmlray.inference.export import export
    from dmlray.inference.load import load_model
    from dmlray.inference.model import Model
    from dmlray.inference.search import query


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
