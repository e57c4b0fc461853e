"""Deep pixels are scaled to 8 bits: not black, clipped or wrapped."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data.cache.decode import decode, decoded
from dmlray.errors import DataError

RAMP = np.tile(np.linspace(0, 1, 30), (20, 1))
EIGHT = (RAMP * 255).round().astype(np.uint8)


def grey(path: Path) -> np.ndarray:
    pixels = decode(path, None)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def tiff(path: Path, values: np.ndarray, sample_format: int, photometric: int = 1) -> Path:
    """Write an uncompressed grey TIFF of any depth and byte order, which Pillow cannot write."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    height, width = values.shape
    data = values.tobytes()
    tags = {
        **{256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: photometric, 273: 8},
        **{277: 1, 278: height, 279: len(data), 339: sample_format},
    }
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    count = struct.pack(f"{order}H", len(entries))
    path.write_bytes(b"".join([head, data, count, *entries, bytes(4)]))
    return path


def png(path: Path, depth: int, colour: int, row: bytes, key: Sequence[int] = ()) -> Path:
    """Write a PNG of two pixels, with a transparent colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b"",
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("kind", "sample_format", "low", "high"),
    [
        ("<f4", 3, 0.0, 1.0),
        (">f4", 3, -5e6, 7e6),
        ("<f4", 3, 1e-9, 1.1e-9),
        ("<f4", 3, -3.4e38, 3.4e38),
        ("<i4", 2, -(2**31), 2**31 - 1),
        (">i4", 2, 0, 5),
        ("<u4", 1, 0, 2**32 - 1),
        ("<u4", 1, 2**31 - 50, 2**31 + 50),
        ("<i2", 2, -1000, 1000),
        (">i2", 2, -32768, 32767),
    ],
)
def test_float_32_bit_and_signed_values_are_scaled_by_their_own_range(
    tmp_path: Path, kind: str, sample_format: int, low: float, high: float
) -> None:
    values = (low + RAMP * (float(high) - float(low))).astype(kind)
    path = tiff(tmp_path / "deep.tif", values, sample_format)
    exact = values.astype(np.float64)
    wanted = (exact - exact.min()) / (exact.max() - exact.min()) * 255
    assert np.abs(grey(path) - wanted).max() <= 0.5001
    assert decoded(path, None).scaled


def test_compressed_floats_and_portable_ones_are_scaled_too(tmp_path: Path) -> None:
    image = Image.fromarray((RAMP * 1e6 - 5).astype(np.float32))
    image.save(tmp_path / "deep.tif", compression="tiff_lzw")
    image.save(tmp_path / "deep.pfm")
    (tmp_path / "deep.pfm").rename(tmp_path / "deep.ppm")  # a suffix that is listed
    for name in ("deep.tif", "deep.ppm"):
        assert np.abs(grey(tmp_path / name).astype(int) - EIGHT).max() <= 1


def test_values_that_are_no_numbers_do_not_spoil_the_range(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    pixels = grey(tiff(tmp_path / "deep.tif", values, 3))
    assert pixels[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_array_equal(pixels[1:], EIGHT[1:])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((4, 4), 7, "<f4"), "all its values are 7, so there is no range to scale by"),
        (np.zeros((4, 4), "<i4"), "all its values are 0, so there is no range to scale by"),
        (np.full((4, 4), np.nan, "<f4"), "none of its values is finite, so there is no range"),
        (np.full((4, 4), np.inf, "<f4"), "none of its values is finite, so there is no range"),
    ],
)
def test_values_without_a_range_are_refused(
    tmp_path: Path, values: np.ndarray, reason: str
) -> None:
    path = tiff(tmp_path / "flat.tif", values, 3 if values.dtype.kind == "f" else 2)
    with pytest.raises(DataError, match=f"flat.tif: not a readable image: {reason}"):
        decode(path, None)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_unsigned_16_bits_are_divided_by_257(
    tmp_path: Path, order: str, options: dict[str, str]
) -> None:
    values = np.arange(0, 65_536, 8, dtype=order).reshape(64, 128)
    Image.fromarray(values).save(tmp_path / "deep.tif", **options)
    np.testing.assert_array_equal(
        grey(tmp_path / "deep.tif"), (values.astype(np.float64) / 257).round()
    )


@pytest.mark.parametrize("most", [65_535, 4095])
def test_portable_greymaps_are_scaled_by_the_largest_value_that_they_name(
    tmp_path: Path, most: int
) -> None:
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 30 20 %d\n" % most + (RAMP * most).round().astype(">u2").tobytes())
    assert np.abs(grey(path).astype(int) - EIGHT).max() <= 1
    assert not decoded(path, None).scaled


def test_white_is_white_where_the_file_counts_from_white(tmp_path: Path) -> None:
    path = tiff(tmp_path / "deep.tif", (RAMP * 65_535).astype("<u2"), 1, photometric=0)
    assert np.abs(grey(path).astype(int) - EIGHT[:, ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("depth", "row", "key", "left"),
    [
        (16, struct.pack(">2H", 0x8000, 0), 0, 128),
        (16, struct.pack(">2H", 0x8000, 0xFFFE), 0xFFFE, 128),
        (16, struct.pack(">2H", 0x0001, 0x0002), 0x0002, 0),
        (8, bytes([100, 77]), 77, 100),
        (4, bytes([0x3F]), 15, 51),
        (2, bytes([0b01110000]), 3, 85),
        (1, bytes([0b01000000]), 1, 0),
    ],
)
def test_the_transparent_grey_becomes_white_at_every_depth(
    tmp_path: Path, depth: int, row: bytes, key: int, left: int
) -> None:
    assert grey(png(tmp_path / "key.png", depth, 0, row, [key])).tolist() == [[left, 255]]


def test_the_transparent_colour_becomes_white_at_16_bits(tmp_path: Path) -> None:
    row = struct.pack(">6H", 0x1200, 0x3400, 0x5600, 0, 0, 0)
    pixels = decode(png(tmp_path / "key.png", 16, 2, row, [0x1200, 0x3400, 0x5600]), None)
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("colour", "row"),
    [(0, "2H"), (2, "6H"), (4, "4H"), (6, "8H")],
    ids=["grey", "colour", "grey and alpha", "colour and alpha"],
)
@pytest.mark.parametrize("most", [4095, 4200])
def test_the_largest_16_bit_value_is_known(
    tmp_path: Path, colour: int, row: str, most: int
) -> None:
    count = int(row[0]) // 2
    values = [most] * count + [0] * count
    if colour >= 4:  # opaque
        values[count - 1] = values[-1] = 65_535
    peak = decoded(png(tmp_path / "deep.png", 16, colour, struct.pack(f">{row}", *values)), None)[1]
    assert peak is not None
    assert (peak <= 4095) == (most == 4095)
