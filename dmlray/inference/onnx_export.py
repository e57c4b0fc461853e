"""A model as one ONNX graph: crops in, unit embeddings out, for batches of any size."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmlray.backbones.weights import silenced
from dmlray.errors import ConfigError, DataError
from dmlray.inference.images import ImageLike, crop_all
from dmlray.inference.model import Model

OPSET = 20
MOST_DIFFERENCE = 1e-4  # of a number in an embedding, between torch and ONNX Runtime
OUTPUT = "embeddings"
_MOST_INSIDE = 1_800_000_000  # bytes of tensors in the file itself; protobuf ends at 2 GiB


def write_onnx(model: Model, path: Path, images: Sequence[ImageLike]) -> float:
    """Write the graph and compare it with torch on `images`; the largest difference.

    Raises:
        ConfigError: If the packages for it are not installed.
        DataError: If the network cannot be exported, or the difference is above 1e-4.
    """
    require_packages()
    crops = crop_all(images, model.config.crops, model.config.max_pixels)
    _export(model, path, [crop[:2].repeat(2, 1, 1, 1)[:2] for crop in crops])
    difference = _largest_difference(model, path, crops)
    if not difference <= MOST_DIFFERENCE:
        problem = f"differs from torch by {difference:.1e} on {len(images)} images"
        raise DataError(f"{path.name}: {problem}. Allowed: {MOST_DIFFERENCE:g}")
    return difference


def require_packages() -> None:
    """Check that what exports and runs ONNX is there.

    Raises:
        ConfigError: If not.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript

        del onnx, onnxruntime, onnxscript
    except ImportError as error:
        problem = f'needs the package {error.name}: pip install "dmlray[export]"'
        raise ConfigError("onnx", [problem]) from None


def _export(model: Model, path: Path, example: Sequence[Tensor]) -> None:
    """Trace the network with two images, whose number stays open."""
    network = model.network.to("cpu")
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        with _quiet():
            torch.onnx.export(
                network,
                tuple(example),
                path,
                input_names=model.inputs,
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(tuple({0: "batch"} for _ in example),),
                external_data=size > _MOST_INSIDE,
                verbose=False,
            )
    except Exception as error:  # torch raises many kinds for what it cannot trace
        cause = error.__cause__ or error  # the outer one advises how to call it
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise DataError(f"{path.name}: this network cannot be exported: {reason}") from error


def _largest_difference(model: Model, path: Path, crops: Sequence[Tensor]) -> float:
    """Compare all crops at once, and the first one alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in (len(crops[0]), 1):
        part = [crop[:count] for crop in crops]
        feed = {name: crop.numpy() for name, crop in zip(model.inputs, part, strict=True)}
        (found,) = session.run([OUTPUT], feed)
        expected = model.embed_crops(part, torch.device("cpu"))
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from printing its steps and from advice for its authors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
