"""Any image file becomes upright 8-bit RGB, or an error that names it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from dmlray.data.decode import LONGEST, decode, decoded_size
from dmlray.errors import DataError

HEIGHT, WIDTH = 20, 30
GREY = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
COLOURS = np.stack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)], axis=2)
ON_ITS_SIDE, ORIENTATION = 6, 0x0112  # EXIF: turn by 90 degrees clockwise to see it upright


def save(path: Path, image: Image.Image, **options: object) -> Path:
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
    if mode != "1":  # and it looks like what was drawn
        wanted = COLOURS if mode != "L" else np.asarray(Image.open(path))[..., None]
        assert np.abs(pixels.astype(int) - wanted).mean() < 25


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    assert Image.open(path).mode.startswith("I")
    np.testing.assert_array_equal(decode(path, None), np.repeat(GREY[..., None], 3, axis=2))


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
def test_rotation_from_exif_is_applied(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = ON_ITS_SIDE
    image = Image.fromarray(COLOURS)
    path = save(tmp_path / f"side.{suffix}", image, exif=exif, quality=95)
    plain = save(tmp_path / f"plain.{suffix}", image, quality=95)
    pixels = decode(path, None)
    np.testing.assert_array_equal(pixels, np.rot90(decode(plain, None), -1))
    assert decoded_size(path, None) == pixels.shape[:2] == (WIDTH, HEIGHT)


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


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_threads_of_pixels_stay_small(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "thread.png", Image.new("RGB", size[::-1]))
    shape = decode(path, 64).shape[:2]
    assert decoded_size(path, 64) == shape
    assert min(shape) == 64
    assert max(shape) == (64 if size == (1, 1) else 64 * LONGEST)


def broken_files(folder: Path) -> list[Path]:
    whole = save(folder / "whole.jpg", Image.fromarray(COLOURS)).read_bytes()
    contents = {
        "cut.jpg": whole[: len(whole) * 2 // 3],
        "text.png": b"not an image",
        "empty.webp": b"",
        "head.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_broken_files_are_named(tmp_path: Path) -> None:
    for path in [*broken_files(tmp_path), tmp_path / "missing.png"]:
        with pytest.raises(DataError, match=f"{path.name}: not a readable image"):
            decode(path, None)


@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow only warns up to twice its limit
def test_decompression_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    path = save(tmp_path / "bomb.png", Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    for read in (decode, decoded_size):
        with pytest.raises(DataError, match=r"bomb\.png: refused, has more than [\d,]+ pixels"):
            read(path, None)
