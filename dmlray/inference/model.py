"""A trained model: tensors, preprocessing and protocol; images in, unit vectors out."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dmlray import __version__, backbones
from dmlray.backbones.trunk import Pooling
from dmlray.data.batches.augment import Transform
from dmlray.data.batches.loader import EVALUATION_BATCH, ahead
from dmlray.data.cache.decode import MAX_PIXELS
from dmlray.errors import ConfigError, RunError
from dmlray.evaluation.verification import AUTO
from dmlray.inference.config import ModelConfig, branch_of
from dmlray.inference.images import ImageLike, crop_all
from dmlray.inference.network import Network
from dmlray.learn.device import default_device, loader_threads, named_device
from dmlray.learn.precision import precision_of
from dmlray.methods import Features
from dmlray.plans.experiment import BudgetConfig
from dmlray.scores import Scores, protocol_line, why_no_threshold
from dmlray.tensor_files import hash_tensors

Progress = Callable[[int, int], None]


class Model:
    """What leaves a run; needs neither the training images nor the method's loss.

    `network` maps crops (B, 3, S, S) uint8 RGB, one batch for each of `config.crops`, to unit
    rows (B, D).
    """

    def __init__(self, config: ModelConfig, network: Network) -> None:
        self.config, self.network = config, network

    @property
    def dimension(self) -> int:
        """Numbers of each vector."""
        return self.config.dimension

    @property
    def scores(self) -> Scores | None:
        """Scores of the run on its test classes; none where nothing was trained."""
        return self.config.scores

    @property
    def protocol(self) -> str:
        """What its scores depend on, in one line."""
        scores = self.config.scores
        return protocol_line(scores) if scores else "not trained by dmlray, no scores"

    @property
    def thresholds(self) -> dict[str, float]:
        """Cosines from which on two images match, by name, such as fmr_1e-3 or best_f1."""
        found = self.scores.verification if self.scores else None
        return {name: each.cosine for name, each in found.thresholds.items()} if found else {}

    def threshold(self, name: str = AUTO) -> float:
        """The cosine of one of `thresholds`; default: at a false match rate of 0.001.

        Raises:
            ConfigError: If there is none of this name; the sentence says why.
        """
        found = self.thresholds
        if name in found:
            return found[name]
        if not self.scores or not self.scores.verification:
            why = why_no_threshold(self.scores) if self.scores else "nothing was trained"
            problem = f"the model has none: {why}. Allowed: a cosine from -1 to 1"
        else:
            listed = ", ".join(f"{key} ({value:.4f})" for key, value in found.items())
            compared = f"{self.scores.verification.negatives} comparisons of different classes"
            problem = f"the model has none for {name} ({compared} chose them)"
            problem += f". Allowed: {listed or 'a cosine from -1 to 1'}"
        raise ConfigError("`threshold`", [problem])

    @property
    def inputs(self) -> list[str]:
        """Names of the network's inputs: `images`, and `images_2` ... where branches differ."""
        others = range(2, len(self.config.crops) + 1)
        return ["images", *(f"images_{number}" for number in others)]

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of all that a vector depends on: tensors, architecture and preprocessing."""
        kept = {"branches", "projection", "max_pixels", "precision"}
        digest = hashlib.sha256(self.config.model_dump_json(include=kept).encode())
        hash_tensors(digest, self.network.state_dict())
        return digest.hexdigest()[:16]

    def preprocess(self, image: ImageLike) -> dict[str, Tensor]:
        """The crops (3, S, S) uint8 RGB of an image, by the name of the network's input."""
        crops = crop_all([image], self.config.crops, self.config.max_pixels)
        return {name: crop[0] for name, crop in zip(self.inputs, crops, strict=True)}

    def embed(
        self,
        images: Sequence[ImageLike] | ImageLike,
        batch_size: int = EVALUATION_BATCH,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Unit vectors (N, D) float32 of N images, in order.

        Args:
            images: Paths, Pillow's images, or arrays (H, W, 3) uint8 RGB; also a single one.
            batch_size: Images at once; the default is that of evaluation.
            device: Default: this process's GPU, or the CPU where there is none.
            progress: Called with (images done, images in all).

        Raises:
            DataError: If an image cannot be read.
        """
        single = isinstance(images, str | Path | Image.Image) or (
            isinstance(images, np.ndarray) and images.ndim in (2, 3)  # else a list of images
        )
        listed: Sequence[ImageLike] = [images] if single else images  # type: ignore[assignment,list-item]
        device = default_device() if device is None else named_device(device)
        starts = range(0, len(listed), batch_size)
        batches = [(n, slice(start, start + batch_size)) for n, start in enumerate(starts)]
        rows = np.empty((len(listed), self.dimension), dtype=np.float32)

        def cut(batch: int, part: slice) -> tuple[Tensor, ...]:
            return crop_all(listed[part], self.config.crops, self.config.max_pixels)

        threads = loader_threads(device, torch.get_num_threads())
        with closing(ahead(cut, batches, threads)) as made:
            for (_, part), crops in zip(batches, made, strict=True):
                rows[part] = self.embed_crops(crops, device)
                if progress:
                    progress(min(part.stop, len(listed)), len(listed))
        return rows

    def embed_crops(self, crops: Sequence[Tensor], device: torch.device) -> np.ndarray:
        """Unit vectors (B, D) of crops as `preprocess` makes them.

        Raises:
            RunError: If some are not finite.
        """
        network = self.network.to(device)
        how = precision_of(BudgetConfig(precision=self.config.precision), device)
        with torch.inference_mode(), how.evaluate():
            rows: np.ndarray = network(*(crop.to(device) for crop in crops)).cpu().numpy()
        if broken := int((~np.isfinite(rows).all(1)).sum()):
            raise RunError(f"{broken} of {len(rows)} vectors are not finite")
        return rows


def bare_backbone(
    name: str,
    weights: str = "pretrained",
    pooling: Pooling = "avg",
    transform: Transform | None = None,
) -> Model:
    """A backbone as it is, without any training; its pooled features are the vectors.

    Args:
        name: Of the backbone.
        weights: `pretrained`, `none` (drawn at random), or the path of a file of tensors.
        pooling: As `backbone.pooling`.
        transform: How images are cut; default: 256 pixels, and 224 of their centre.

    Raises:
        DmlrayError: If there is no such backbone, or its weights cannot be had.
    """
    trunk = backbones.build(name, weights, pooling)
    config = ModelConfig(
        dmlray=__version__,
        dimension=trunk.width,
        branches=[branch_of(trunk, name, transform or Transform(), Features())],
        max_pixels=MAX_PIXELS,
    )
    return Model(config, Network(config, [trunk]))
