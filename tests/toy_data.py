"""A data set and settings so small that a training takes a second: coloured noise by class."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, IMAGES, SIDE = 12, 8, 32


def draw_images(root: Path, classes: int = CLASSES, images: int = IMAGES) -> Path:
    """One folder per class; a class has its colour, an image its noise."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class{label:02d}"
        folder.mkdir(parents=True)
        colour = rng.integers(118, 138, 3)
        for number in range(images):
            noise = rng.normal(0, 40, (SIDE, SIDE, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def toy_words(root: Path, epochs: int = 2) -> list[str]:
    """Overrides that turn a demo experiment into a toy."""
    return [
        "data.name=folder",
        f"data.root={root}",
        "data.batch_size=8",
        "data.transform.size=32",
        "data.transform.eval_resize=32",
        "data.transform.padding=2",
        "backbone.name=timm/test_resnet",
        "backbone.weights=none",
        f"budget.epochs={epochs}",
        "budget.head_warmup_steps=5",
        "protocol.recall_at=[1, 2]",
    ]
