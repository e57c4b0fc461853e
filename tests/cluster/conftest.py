"""Ray for tests: its own temporary folder, few resources, started once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toy_data import draw_images


@pytest.fixture(scope="session")
def toy_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("toys") / "images")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables for commands in separate processes; Ray's sockets need a short path."""
    ray = tempfile.mkdtemp(prefix="dr")
    cache = str(tmp_path_factory.mktemp("cache"))
    own = {"RAY_TMPDIR": ray, "DMLRAY_CACHE": cache, "OMP_NUM_THREADS": "1"}
    yield {**os.environ, **own}
    shutil.rmtree(ray, ignore_errors=True)


@pytest.fixture(scope="module")
def fake_gpus(environment: dict[str, str]) -> Iterator[None]:
    """Ray in this process with two GPUs that are only numbers.

    Its workers compute on the CPU whatever share they hold, which they would refuse to do.
    """
    import ray

    from dmlray.cluster.local_ray import few_processes
    from dmlray.cluster.ray_environment import QUIET

    def on_the_cpu() -> None:
        """Patch the module as it is imported: many of Ray's processes do without torch."""
        import importlib.util
        import sys
        from importlib.abc import MetaPathFinder
        from importlib.machinery import ModuleSpec

        class Finder(MetaPathFinder):
            def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
                if name != "dmlray.learn.device":
                    return None
                sys.meta_path.remove(self)
                spec: Any = importlib.util.find_spec(name)
                execute = spec.loader.exec_module

                def exec_module(module: Any) -> None:
                    execute(module)
                    module.check_gpu = lambda name: None
                    module.device_of = lambda gpu: module.torch.device("cpu")

                spec.loader.exec_module = exec_module
                return spec

        sys.meta_path.insert(0, Finder())

    before = dict(os.environ)
    os.environ.update(environment | QUIET)
    os.environ.update(RAY_prestart_worker_first_driver="0", RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0")
    with few_processes():
        ray.init(
            "local",
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
            runtime_env={"worker_process_setup_hook": on_the_cpu},
            _temp_dir=environment["RAY_TMPDIR"] + "/r",  # Ray opens it to all users
        )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)
