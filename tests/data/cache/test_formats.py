"""Which files are images."""

import io

import pillow_heif
import pytest
from PIL import Image

from dmlray.data.cache.formats import FORMATS, HEAD, SUFFIXES, is_raster, suffix

pillow_heif.register_heif_opener()


def test_every_suffix_is_of_a_format_that_is_opened() -> None:
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(FORMATS) - {"MPO"}


@pytest.mark.parametrize("name", FORMATS)
def test_content_shows_each_format(name: str) -> None:
    content = io.BytesIO()
    image = Image.new("RGB", (300, 200), "red")
    image.save(content, name, **({"save_all": True} if name == "MPO" else {}))
    assert is_raster(content.getvalue()[:HEAD])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM25 is a ranking function of text",
        b"P5 is a model of loudspeakers",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"RIFF\x24\x08\x00\x00WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"PK\x03\x04",
    ],
)
def test_other_content_is_no_image(content: bytes) -> None:
    assert not is_raster(content[:HEAD])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPG", ".jpg"),
        ("a.b.jpeg", ".jpeg"),
        ("a.jpg~", ".jpg~"),
        ("a", ""),
        ("Screenshot at 10.20.30", ""),
        ("Dr. Smith 7", ""),
        ("a.jpg?width=300", ""),
        ("a.jpg.1", ""),
    ],
)
def test_what_follows_a_dot_is_not_always_a_suffix(name: str, expected: str) -> None:
    assert suffix(name) == expected
