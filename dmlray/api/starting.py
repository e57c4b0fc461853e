"""The function behind `dmlray init`: from a folder of images to files to begin with."""

import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch

from dmlray.atomic_files import write_text
from dmlray.backbones.efficientnet_lite0 import PACKAGE
from dmlray.data.datasets.survey import Survey, survey
from dmlray.errors import ConfigError
from dmlray.learn.training_speed import images_per_second
from dmlray.local_paths import path_of
from dmlray.plans.experiment import BackboneConfig, BudgetConfig
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.starter import Schedule, Settings, choose_schedule, choose_settings, image_sizes
from dmlray.plans.starter_files import experiment_text, search_text
from dmlray.reporting.progress import Display, Shown, shown


@dataclass(frozen=True)
class Started:
    """What was found and written; `search` is None where no folds are possible."""

    images: Survey
    schedule: Schedule
    speed: float  # images trained on per second
    experiment: Path
    search: Path | None


def init(images: str | Path, *, out: str | Path | None = None, display: Shown = "auto") -> Started:
    """Look at a folder or table of images; write an experiment and a search for it.

    Args:
        images: Folder, CSV or parquet file, or a folder written by `datasets`' save_to_disk.
        out: Folder of the two files; the current one if None.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If the folder cannot be written, or a file of that name is there.
        DataError: If the images cannot be used.
    """
    folder = Path() if out is None else path_of("out", out)
    with shown(display) as entered:
        return _init(path_of("images", images), folder, entered)


def _init(images: Path, out: Path, display: Display) -> Started:
    name = re.sub(r"[^\w-]+", "_", images.absolute().stem).strip("_") or "images"
    experiment, search = out / f"{name}.yaml", out / f"{name}_search.yaml"
    _check_new(out, experiment, search)
    found = survey(images, display.count("decoding images"))
    settings, speed, schedule = _choose(found, display)
    texts = {experiment: experiment_text(found, settings, schedule)}
    if schedule.folds:
        texts[search] = search_text(experiment, schedule)
    _check_new(out, *texts)
    _write(texts)
    return Started(found, schedule, speed, experiment, search if schedule.folds else None)


def _check_new(out: Path, *files: Path) -> None:
    RunFolder(out).check_writable()
    for file in files:
        if file.exists() or file.is_symlink():
            raise ConfigError(str(file), ["exists. Allowed: another folder (`out`)"])


def _choose(images: Survey, display: Display) -> tuple[Settings, float, Schedule]:
    """Settings, images per second and schedule: the largest images with enough epochs in time."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for size in image_sizes(images, gpu=gpus > 0):
        settings = choose_settings(images, size, gpu=gpus > 0, packaged=_is_packaged())
        display.log(f"measuring how fast {settings.backbone} trains here on {size} pixels")
        speed = _measure(settings)
        schedule = choose_schedule(images, speed, max(1, gpus))
        if schedule.is_long_enough:
            break
    return settings, speed, schedule


def _measure(settings: Settings) -> float:
    backbone = BackboneConfig(
        name=settings.backbone, pooling="avg+max", batchnorm="frozen_statistics"
    )
    budget = BudgetConfig(precision="auto" if settings.gpu else "float32")
    return images_per_second(backbone, settings.size, settings.batch_size, budget)


def _is_packaged() -> bool:
    """Whether the small backbone's weights are installed."""
    try:
        return bool(distribution(PACKAGE).files)
    except PackageNotFoundError:
        return False


def _write(texts: dict[Path, str]) -> None:
    """Write all files or none."""
    written: list[Path] = []
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            written.append(file)
            write_text(file, text)
    except BaseException:
        for file in written:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        raise
