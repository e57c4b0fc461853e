"""Read by each process that the tests start: garbage collection takes a fifth of its imports."""

import gc
import sys
from importlib.abc import MetaPathFinder
from typing import Any

gc.set_threshold(100_000, 50, 50)


class _WithoutWandb(MetaPathFinder):
    """Refuses wandb to timm, which imports it wherever it is installed, as for the tests."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "wandb":
            importer = sys.modules.get("timm.utils.summary")
            if importer and not hasattr(importer, "update_summary"):
                raise ModuleNotFoundError(name)


sys.meta_path.insert(0, _WithoutWandb())
