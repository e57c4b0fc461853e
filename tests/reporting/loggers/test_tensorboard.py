"""The event file, read by TensorBoard itself."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.loggers.tensorboard import RunLogger


def written(folder: Path) -> EventAccumulator:
    (file,) = folder.glob("events.out.tfevents.*")
    return EventAccumulator(str(file)).Reload()


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    for steps in (3, 5):
        logger = RunLogger(RunFolder(tmp_path))
        for step in range(1, steps + 1):
            logger.scalars(step, {"train/loss": 1 / step, "validation/map_at_r": step / 10})
        if steps == 5:  # the first session was killed
            logger.close()
    found = written(tmp_path)
    assert [scalar.step for scalar in found.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert np.allclose(
        [s.value for s in found.Scalars("validation/map_at_r")], np.arange(1, 6) / 10
    )
    assert set(found.Tags()["scalars"]) == {"train/loss", "validation/map_at_r"}


def test_what_is_logged_is_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    logger = RunLogger(RunFolder(tmp_path))
    logger.scalars(1, {"train/loss": 0.5})
    assert [scalar.value for scalar in written(tmp_path).Scalars("train/loss")] == [0.5]
    logger.close()


def test_settings_of_any_kind_and_pictures_reach_the_file(tmp_path: Path) -> None:
    logger = RunLogger(RunFolder(tmp_path))
    logger.hparams({"data.root": "/a\udcff\x1b", "lr": 0.1, "depths": [1, 2], "fold": None}, {})
    logger.image("test/curve", np.zeros((4, 6, 3), np.uint8))
    logger.close()
    found = written(tmp_path)
    note = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(note).hparams
    assert settings["data.root"].string_value == r"/a\udcff\x1b"
    assert settings["lr"].number_value == 0.1
    assert settings["depths"].string_value == "[1, 2]"
    (image,) = found.Images("test/curve")
    assert (image.height, image.width) == (4, 6)
