"""MLflow: one run per run folder, in files of the opened run unless MLFLOW_TRACKING_URI is set."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from filelock import FileLock

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read on import

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from dmlray.atomic_files import write_text
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable

_PARAMS_AT_ONCE = 100  # MLflow's limit
_LONGEST = 6000  # characters of a value, MLflow's limit


class RunLogger:
    """Logs to MLflow. A resumed run continues its MLflow run and skips the steps that are there."""

    def __init__(self, folder: RunFolder) -> None:
        root = folder.root or folder.path
        self._steps: dict[str, set[int]] = {}
        with FileLock(root / ".mlflow.lock"):  # members begin at the same time
            self._client = _client(folder)
            found = _recorded(self._client, folder)
            self._resumed = found is not None
            self._run = found or _created(self._client, folder)
        self._client.update_run(self._run, status="RUNNING")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values that have none at `step` yet."""
        now = int(time.time() * 1000)
        new = [
            Metric(name, value, now, step)
            for name, value in values.items()
            if step not in self._logged(name)
        ]
        self._client.log_batch(self._run, metrics=new, synchronous=True)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Log the settings as parameters; the metrics are there already."""
        if self._resumed:  # parameters are logged once
            return
        params = [Param(key, printable(str(value))[:_LONGEST]) for key, value in values.items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            part = params[first : first + _PARAMS_AT_ONCE]
            self._client.log_batch(self._run, params=part, synchronous=True)

    def image(self, name: str, image: np.ndarray) -> None:
        """Keep a picture, uint8 (height, width, 3), as the artifact NAME.png."""
        self._client.log_image(self._run, image, artifact_file=f"{name}.png")

    def close(self) -> None:
        """End the MLflow run, as failed while an exception is on its way."""
        failed = sys.exc_info()[0] is not None
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")

    def _logged(self, name: str) -> set[int]:
        """Steps at which a metric was logged in earlier sessions."""
        if not self._resumed:
            return set()
        if name not in self._steps:
            history = self._client.get_metric_history(self._run, name)
            self._steps[name] = {metric.step for metric in history}
        return self._steps[name]


def _client(folder: RunFolder) -> MlflowClient:
    """MLflow's client of the user's own server, or of files below the opened run."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        return MlflowClient()
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=((folder.root or folder.path) / "mlruns").as_uri())


def _recorded(client: MlflowClient, folder: RunFolder) -> str | None:
    """The MLflow run of an earlier session; None if there is none or it was deleted."""
    try:
        run = client.get_run(folder.logger_run("mlflow").read_text().strip())
    except (FileNotFoundError, MlflowException):
        return None
    return str(run.info.run_id) if run.info.lifecycle_stage == "active" else None


def _created(client: MlflowClient, folder: RunFolder) -> str:
    """Begin an MLflow run in the experiment that bears the name of the opened run."""
    name = printable((folder.root or folder.path).name)
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    run = client.create_run(number, run_name=printable(folder.title))
    write_text(folder.logger_run("mlflow"), run.info.run_id)
    return str(run.info.run_id)
