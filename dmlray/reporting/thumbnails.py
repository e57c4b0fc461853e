"""Small pictures of images, as addresses that hold them."""

import base64
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from dmlray.data.cache.decode import decoded
from dmlray.errors import DataError

SIDE = 112  # pixels of the longer side


@dataclass
class Thumbnails:
    """Thumbnails of files below `root`, each made once; None where there is no root."""

    root: Path | None
    max_pixels: int
    missing: int = 0
    _made: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, file: str) -> str | None:
        """The picture, None if the image is gone or broken."""
        if file not in self._made:
            self._made[file] = self._make(file)
            self.missing += self._made[file] is None
        return self._made[file]

    def _make(self, file: str) -> str | None:
        if self.root is None:
            return None
        try:
            image = decoded(self.root / file, None, self.max_pixels).image
        except DataError:
            return None
        return jpeg_address(image, SIDE, quality=80)


def jpeg_address(image: Image.Image, side: int, quality: int) -> str:
    """Shrink `image` to `side` pixels at its longer side; return a data address of the JPEG."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    packed = BytesIO()
    small.save(packed, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
