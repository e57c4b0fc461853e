"""Any image file becomes upright 8-bit RGB, or an error that names it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener
from torchvision import transforms

from dmlray.data.cache.decode import LONGEST, UnreadableImageError, decode, decoded_size

HEIGHT, WIDTH = 20, 30
GREY = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
COLOURS = np.stack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)], axis=2)
ORIENTATION = 0x0112  # EXIF's tag


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_opaque_modes_become_what_pillow_converts_them_to(tmp_path: Path, mode: str) -> None:
    suffix = "png" if mode in ("1", "P") else "jpg"
    path = save(tmp_path / f"image.{suffix}", Image.fromarray(COLOURS).convert(mode))
    pixels = decode(path, None)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))
    if mode != "1":  # close to the drawn image
        wanted = COLOURS if mode != "L" else np.asarray(Image.open(path))[..., None]
        assert np.abs(pixels.astype(int) - wanted).mean() < 25


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    assert Image.open(path).mode.startswith("I")
    np.testing.assert_array_equal(decode(path, None), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_either_byte_order_are_read(tmp_path: Path, order: str) -> None:
    deep = Image.fromarray((GREY.astype(np.uint16) * 257).astype(order))
    path = save(tmp_path / "deep.tif", deep)
    assert Image.open(path).mode == ("I;16" if order == "<u2" else "I;16B")
    np.testing.assert_array_equal(decode(path, None), np.repeat(GREY[..., None], 3, axis=2))


def test_progressive_jpeg_is_read_as_the_baseline_one(tmp_path: Path) -> None:
    plain, progressive = (
        save(tmp_path / f"{name}.jpg", Image.fromarray(COLOURS), progressive=name == "progressive")
        for name in ("plain", "progressive")
    )
    assert Image.open(progressive).info["progressive"]
    np.testing.assert_array_equal(decode(progressive, None), decode(plain, None))


def test_adobes_inverted_ycck_has_the_colours_that_were_drawn(tmp_path: Path) -> None:
    """A YCCK file is CMYK with YCbCr in the first three planes and in the Adobe marker."""
    inverted = 255 - COLOURS  # cyan, magenta, yellow of these colours
    luma_chroma = np.asarray(Image.fromarray(inverted).convert("YCbCr"))
    planes = np.dstack([255 - luma_chroma, np.zeros_like(GREY)])  # Pillow inverts what it writes
    path = save(tmp_path / "ycck.jpg", Image.frombytes("CMYK", (WIDTH, HEIGHT), planes.tobytes()))
    content = bytearray(path.read_bytes())
    content[content.index(b"Adobe") + 11] = 2  # the colour transform: YCCK
    path.write_bytes(content)
    assert Image.open(path).info["adobe_transform"] == 2
    assert np.abs(decode(path, None).astype(int) - COLOURS).mean() < 10


def test_transparent_colour_of_an_rgb_image_becomes_white(tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    blocks = np.where(GREY[..., None] > 127, [10, 20, 30], [200, 100, 50]).astype(np.uint8)
    pixels = decode(save(path, Image.fromarray(blocks), transparency=(10, 20, 30)), None)
    assert (pixels[GREY > 127] == 255).all()
    assert (pixels[GREY <= 127] == [200, 100, 50]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, : WIDTH // 2] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = decode(save(tmp_path / "clear.png", image), None)
    assert (pixels[:, WIDTH // 2 :] == 255).all()
    opaque = np.asarray(Image.fromarray(COLOURS).convert(mode[:-1]).convert("RGB"))
    np.testing.assert_array_equal(pixels[:, : WIDTH // 2], opaque[:, : WIDTH // 2])


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.fromarray((GREY > 127).astype(np.uint8), mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    pixels = decode(save(tmp_path / "palette.png", image, transparency=1), None)
    assert (pixels[GREY > 127] == 255).all()
    assert (pixels[GREY <= 127] == [10, 20, 30]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_and_mirrors_of_exif_are_applied(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(COLOURS)
    path = save(tmp_path / f"side.{suffix}", image, exif=exif, quality=95)
    plain = save(tmp_path / f"plain.{suffix}", image, quality=95)
    pixels = decode(path, None)
    stored = decode(plain, None)
    columns = stored.transpose(1, 0, 2)
    upright = {  # visual position of the stored first row and first column, by the standard
        1: stored,  # top, left
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: columns,  # left, top
        6: columns[:, ::-1],  # right, top
        7: columns[::-1, ::-1],  # right, bottom
        8: columns[::-1],  # left, bottom
    }
    np.testing.assert_array_equal(pixels, upright[orientation])
    assert decoded_size(path, None) == pixels.shape[:2]


@pytest.mark.parametrize("exif", [b"Exif\0\0" + b"garbage" * 5, b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_spoil_the_pixels(tmp_path: Path, exif: bytes) -> None:
    path = save(tmp_path / "image.jpg", Image.fromarray(COLOURS), exif=exif)
    assert decode(path, None).shape[:2] == decoded_size(path, None) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (61, 97), (50, 50), (33, 210)])
@pytest.mark.parametrize("short_side", [32, 50, 71])
def test_resizing_equals_torchvisions_on_pillow(
    tmp_path: Path, size: tuple[int, int], short_side: int
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    path = save(tmp_path / "image.png", image)
    wanted = np.asarray(transforms.Resize(short_side)(image))
    np.testing.assert_array_equal(decode(path, short_side), wanted)
    assert decoded_size(path, short_side) == wanted.shape[:2]


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1)])
def test_threads_of_pixels_are_kept_as_they_are(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "thread.jpg", Image.new("RGB", size[::-1]))
    assert decode(path, None).shape == (*size, 3)
    assert decoded_size(path, None) == size


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_threads_of_pixels_stay_small(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "thread.png", Image.new("RGB", size[::-1]))
    shape = decode(path, 64).shape[:2]
    assert decoded_size(path, 64) == shape
    assert min(shape) == 64
    assert max(shape) == (64 if size == (1, 1) else 64 * LONGEST)


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    for suffix, options in (("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tif", {})):
        path = save(
            tmp_path / f"moving.{suffix}", frames[0], save_all=True, append_images=frames[1:],
            **options,
        )  # fmt: skip
        assert getattr(Image.open(path), "n_frames", 1) == 3
        np.testing.assert_array_equal(decode(path, None), np.asarray(frames[0]))


def test_heic_is_read_upright(tmp_path: Path) -> None:
    register_heif_opener()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    drawn = Image.fromarray(COLOURS).resize((96, 64))
    # As bytes: then the turn is also stored as phones store it, beside EXIF.
    path = save(tmp_path / "IMG_1.HEIC", drawn, quality=100, exif=exif.tobytes())
    wanted = np.rot90(np.asarray(drawn), -1)
    assert decoded_size(path, None) == wanted.shape[:2]
    assert np.abs(decode(path, None).astype(int) - wanted).mean() < 8


def test_heic_without_its_package_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_heif_opener()
    path = save(tmp_path / "1.heic", Image.fromarray(COLOURS))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    with pytest.raises(UnreadableImageError, match=r"a HEIC file, .*dmlray\[heic\]"):
        decode(path, None)
