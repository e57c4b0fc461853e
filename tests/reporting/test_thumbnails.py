"""Pictures of a report: small, made once, and missing ones counted."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from dmlray.reporting.thumbnails import SIDE, Thumbnails


def opened(address: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))


def test_a_picture_keeps_its_shape_and_is_made_once(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (200, 20, 20)).save(tmp_path / "wide.png")
    Image.new("L", (10, 20)).save(tmp_path / "small.png")
    thumbnails = Thumbnails(tmp_path, max_pixels=10**6)
    wide = thumbnails("wide.png")
    assert opened(wide).size == (SIDE, SIDE // 2)
    red, green, _ = np.asarray(opened(wide))[5, 5]
    assert (red > 180, green < 40) == (True, True)
    assert opened(thumbnails("small.png")).size == (10, 20)
    (tmp_path / "wide.png").unlink()
    assert thumbnails("wide.png") == wide
    assert thumbnails.missing == 0


def test_what_is_gone_broken_or_too_large_has_no_picture_and_counts_once(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    thumbnails = Thumbnails(tmp_path, max_pixels=1000)
    for _ in range(2):
        assert [thumbnails(f"{name}.png") for name in ("gone", "torn", "large")] == [None] * 3
    assert thumbnails.missing == 3
    assert Thumbnails(None, 1000)("any.png") is None
