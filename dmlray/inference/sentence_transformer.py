"""A model folder as a model of sentence-transformers: the class that its `modules.json` names.

Needs `pip install "dmlray[sentence-transformers]"`. sentence-transformers imports classes that are
not its own only with `trust_remote_code=True`, although no code in the folder is run: the class is
this one. Without that argument: `SentenceTransformer(modules=[ImageEmbedder.load(MODEL)])`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules import InputModule
from torch import Tensor

from dmlray.inference.images import ImageLike, crop_all
from dmlray.inference.load import load_model
from dmlray.inference.model import Model
from dmlray.inference.model_files import write_model, write_modules
from dmlray.learn.precision import precision_of
from dmlray.plans.experiment import BudgetConfig


class ImageEmbedder(InputModule):  # type: ignore[misc]  # mypy skips the package
    """Images -> the model's vectors; decodes, cuts and embeds as `Model.embed` does."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.network = model, model.network

    @property
    def modalities(self) -> list[str]:
        """What it takes: paths of image files, Pillow's images, arrays (H, W, 3) uint8 RGB."""
        return ["image"]

    def preprocess(
        self, inputs: Sequence[ImageLike], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The crops (B, 3, S, S) uint8 RGB of images, by the name of the network's input."""
        crops = crop_all(inputs, self.model.config.crops, self.model.config.max_pixels)
        return dict(zip(self.model.inputs, crops, strict=True))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, unit rows (B, D)."""
        crops = [features[name] for name in self.model.inputs]
        how = precision_of(BudgetConfig(precision=self.model.config.precision), crops[0].device)
        with how.evaluate():
            return {**features, "sentence_embedding": self.network(*crops)}

    def get_embedding_dimension(self) -> int:
        """Numbers of each vector."""
        return self.model.dimension

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the files of a model folder, as `dmlray export` does but for the card."""
        write_model(self.model, Path(output_path))
        write_modules(Path(output_path))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> "ImageEmbedder":
        """Load a model folder, a finished run, or a model folder on the Hugging Face Hub.

        Raises:
            DmlrayError: If there is none, or one of its files is damaged.
        """
        names = ("token", "cache_folder", "revision", "local_files_only")
        of_hub = {name: kwargs[name] for name in names if name in kwargs}
        folder = Path(model_name_or_path) / subfolder
        if not folder.is_dir():
            found = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **of_hub)
            folder = Path(found or model_name_or_path)
        return cls(load_model(folder))
