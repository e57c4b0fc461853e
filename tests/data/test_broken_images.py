"""A build continues after broken images, lists all, and leaves them out if allowed."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmlray.data.cache import cache_build
from dmlray.data.cache.broken import leave_out
from dmlray.data.cache.decode import UnreadableImageError, decoded
from dmlray.data.cache.image_cache import cache_folder, find_broken, open_cache
from dmlray.data.cache.pixels import Rgb
from dmlray.data.dataset import Dataset
from dmlray.errors import DataError
from tests.data.caches import assert_holds


def damage(dataset: Dataset, rows: Sequence[int]) -> dict[str, str]:
    """Break images in four ways; return the reason of each file."""
    ways: dict[str, Callable[[bytes], bytes]] = {
        "the file is empty": lambda content: b"",
        "its content has no known image format": lambda content: b"not an image",
        "image file is truncated": lambda content: content[: len(content) // 2],
        "broken PNG file": lambda content: content.replace(b"IDAT", b"IDAU", 1),
    }
    reasons = {}
    for row, (reason, way) in zip(rows, ways.items(), strict=False):
        path = dataset.root / dataset.files[row]
        path.write_bytes(way(path.read_bytes()))
        reasons[dataset.files[row]] = reason
    return reasons


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("processes", [1, 2])
def test_all_broken_images_are_listed_at_once_and_nothing_is_left(
    dataset: Dataset, processes: int
) -> None:
    reasons = damage(dataset, (1, 3, 8, 14))
    with pytest.raises(DataError, match=r"photos: 4 of 19 images cannot be read") as raised:
        open_cache(dataset, None, processes=processes)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    lines = str(raised.value).splitlines()[1:]
    for line, (file, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"  {file}: not a readable image: ")
        assert reason in line
    assert [
        name
        for name in (path.name for path in (cache_folder() / "images").iterdir())
        if not name.endswith(".lock")
    ] == []


def test_the_first_of_very_many_broken_images_are_listed(tmp_path: Path) -> None:
    for row in range(50):
        (tmp_path / f"{row:02d}.png").write_bytes(b"broken")
    names = tuple(f"{row:02d}.png" for row in range(50))
    dataset = Dataset("toy", tmp_path, names, np.zeros(50, np.int64), ("a",), 1)
    with pytest.raises(DataError, match="50 of 50 images cannot be read") as raised:
        open_cache(dataset, None, processes=1)
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines[:-1]] == list(names[:20])
    assert lines[-1] == "  and 30 more"


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("short_side", [None, 16])
def test_broken_images_are_left_out_where_that_is_allowed(
    dataset: Dataset, short_side: int | None
) -> None:
    reasons = damage(dataset, (1, 3, 8, 14))
    found = find_broken(dataset, short_side)
    assert list(found) == list(reasons)
    assert all(reason in found[file] for file, reason in reasons.items())
    sound = leave_out(dataset, found)
    for side in (short_side, 24):
        assert_holds(open_cache(sound, side), sound, side)
    with pytest.raises(DataError, match="4 of 19 images cannot be read"):
        open_cache(dataset, short_side)  # exists, without the broken images


def test_what_is_left_out_is_found_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(dataset, (1, 3))
    sound = leave_out(dataset, find_broken(dataset, None))
    monkeypatch.setattr(cache_build, "measure", None)
    again = leave_out(replace(dataset), find_broken(replace(dataset), None))
    assert again.files == sound.files
    assert_holds(open_cache(again, None), again, None)


def test_a_file_that_the_disk_does_not_give_is_never_left_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(dataset, (1,))

    def fail(path: Path, *settings: object) -> Rgb:
        if path.name == "2.png":
            raise UnreadableImageError(f"{path}: bad", "Input/output error", broken=False)
        return decoded(path, None)

    monkeypatch.setattr(cache_build, "decoded", fail)
    with pytest.raises(DataError, match="4 of 19 images cannot be read") as raised:
        find_broken(dataset, None)
    assert "a/2.png: Input/output error" in str(raised.value)
    assert "a/1.png" not in str(raised.value)
