"""Files that are not images, damaged or too large are refused with a reason."""

import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from dmlray.data.cache.decode import UnreadableImageError, decode, decoded_size
from dmlray.errors import DataError
from tests.data.images import picture

COLOURS = np.asarray(picture(20, 30))


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def broken_files(folder: Path) -> list[Path]:
    whole = save(folder / "whole.jpg", Image.fromarray(COLOURS)).read_bytes()
    contents = {
        "cut.jpg": whole[:-40],
        "text.jpg": b"not an image",
        "empty.webp": b"",
        "head.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_broken_files_are_named(tmp_path: Path) -> None:
    for path in [*broken_files(tmp_path), tmp_path / "missing.png"]:
        with pytest.raises(DataError, match=f"{path.name}: not a readable image: .*[.]$") as raised:
            decode(path, None)
        assert str(raised.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.jpg", r"image file is truncated \(\d+ bytes not processed\)"),
        ("text.jpg", "its content has no known image format"),
        ("empty.webp", "the file is empty"),
        ("missing.png", "No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, reason: str) -> None:
    broken_files(tmp_path)
    with pytest.raises(DataError, match=f"{name}: not a readable image: {reason}[.]$"):
        decode(tmp_path / name, None)


def test_a_cut_png_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    path = save(tmp_path / "cut.png", noise)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"cut\.png: not a readable image: .*truncated"):
        decode(path, None)


@pytest.mark.parametrize("name", ["idat", "head", "end"])
def test_a_png_with_a_wrong_checksum_is_refused(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    path = save(tmp_path / "crc.png", noise)
    content = bytearray(path.read_bytes())
    kind = {"idat": b"IDAT", "head": b"IHDR", "end": b"IEND"}[name]
    at = content.index(kind)
    length = int.from_bytes(content[at - 4 : at])
    content[at + 4 + length] ^= 1 if name != "end" else 0
    if name == "end":
        del content[at - 4 :]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"crc\.png: not a readable image: "):
        decode(path, None)


@pytest.mark.parametrize(
    "suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm", "avif", "heic"]
)
def test_half_a_file_of_any_format_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries do
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    path = save(tmp_path / f"cut.{suffix}", noise)
    assert decode(path, None).shape == (90, 90, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: not a readable image: "):
        decode(path, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("format", ["EPS", "ICO", "PCX", "TGA", "SGI", "PDF", "ICNS"])
def test_only_named_formats_are_opened_whatever_the_suffix(tmp_path: Path, format: str) -> None:
    """Other formats may run programs: Pillow passes PostScript to Ghostscript."""
    path = save(tmp_path / "image.png", Image.fromarray(COLOURS), format=format)
    for read in (decode, decoded_size):
        with pytest.raises(
            DataError, match=r"image\.png: .* its content has no known image format"
        ):
            read(path, None)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: not a readable image: Is a pipe"):
        decode(tmp_path / "pipe.png", None)


@pytest.mark.parametrize("reason", ["No space left on device", "Input/output error"])
def test_what_the_disk_did_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    path = save(tmp_path / "image.jpg", Image.fromarray(COLOURS))

    def fail(self: ImageFile.ImageFile) -> None:
        raise OSError(5, reason)

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UnreadableImageError, match=reason) as raised:
        decode(path, None)
    assert not pickle.loads(pickle.dumps(raised.value)).broken


def header(path: Path, width: int, height: int) -> Path:
    """A PNG of any size, without its pixels."""
    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", b""), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("size", [(12_000, 9_000), (9_000, 12_000), (13_377, 13_377)])
def test_photos_of_108_megapixels_are_read_by_default(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    assert decoded_size(header(tmp_path / "photo.png", *size), None) == size[::-1]


@pytest.mark.parametrize(
    ("size", "most"),
    [((16_000, 12_500), None), ((100_000, 100_000), None), ((101, 100), 10_000)],
)
def test_decompression_bombs_are_refused(
    tmp_path: Path, size: tuple[int, int], most: int | None
) -> None:
    path = header(tmp_path / "bomb.png", *size)
    for read in (decode, decoded_size):
        with pytest.raises(DataError, match=r"bomb\.png: has more than [\d,]+ pixels"):
            read(path, None, most)


def test_the_limit_is_the_callers_and_not_pillows(tmp_path: Path) -> None:
    path = header(tmp_path / "photo.png", 20_000, 10_000)
    before = Image.MAX_IMAGE_PIXELS
    assert decoded_size(path, None, 200_000_000) == (10_000, 20_000)
    assert before == Image.MAX_IMAGE_PIXELS
