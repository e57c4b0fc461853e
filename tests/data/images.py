"""Drawn images."""

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise: neither flat nor pure noise, so that resizing matters."""
    rng = np.random.default_rng(seed)
    waves = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(waves.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
