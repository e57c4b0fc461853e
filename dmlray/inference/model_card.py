"""The model card: what a model is, how good, and how to use it, in Markdown."""

from collections.abc import Iterator

import yaml

from dmlray.evaluation.metrics import label
from dmlray.inference.config import Crop
from dmlray.inference.model import Model
from dmlray.printable import printable
from dmlray.scores import (
    Scores,
    percent,
    protocol_line,
    threshold_table,
    threshold_words,
    why_no_threshold,
)


def model_card(model: Model, onnx: str | None, half: bool) -> str:
    """The card as text; `onnx` says how the graph was checked, where there is one."""
    lines = [
        *("---", "library_name: dmlray", "pipeline_tag: image-feature-extraction"),
        *("tags: [deep-metric-learning, image-retrieval]", "---", ""),
        f"# Image embeddings, {model.dimension} dimensions",
        "",
        *_what(model, half),
        "",
        *(_scores(model.scores) if model.scores else ["Nothing was trained: there are no scores."]),
        "",
        *(_threshold(model.scores) if model.scores else []),
        *_use(model, onnx),
        "",
        *_settings(model),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _what(model: Model, half: bool) -> Iterator[str]:
    config = model.config
    backbones = dict.fromkeys(branch.backbone for branch in config.branches)
    several = f"{len(config.branches)} networks" if len(config.branches) > 1 else "one network"
    yield f"- network: {several} ({', '.join(map(printable, backbones))})"
    if config.projection:
        yield f"- their embeddings side by side are projected to {config.projection} dimensions"
    for name, crop in zip(model.inputs, config.crops, strict=True):
        yield f"- input `{name}`: {_crop(crop)}; normalisation is part of the network"
    yield "- vectors have length 1: compare them by their dot product"
    if half:
        yield "- weights are kept in float16, and computed with in float32"
    yield f"- fingerprint {model.fingerprint}; made with dmlray {printable(config.dmlray)}"


def _crop(crop: Crop) -> str:
    side = f"short side resized to {crop.short_side}, " if crop.short_side else ""
    return f"RGB, {side}centre {crop.size} x {crop.size} pixels, uint8, channels first"


def _scores(scores: Scores) -> Iterator[str]:
    yield "## Scores"
    yield ""
    yield f"On {scores.test_classes} classes of {printable(scores.dataset)} never seen in training,"
    interval = "mean and half-width of the 95 % interval" if scores.half_width else "no interval"
    yield f"in percent, n = {scores.n} ({interval}):"
    yield ""
    yield "| metric | score | before training |"
    yield "|---|---|---|"
    for name in scores.metrics:
        width = f" ± {percent(scores.half_width, name)}" if name in scores.half_width else ""
        before = percent(scores.zero_shot, name)
        yield f"| {label(name)} | {percent(scores.metrics, name)}{width} | {before} |"
    yield ""
    yield "Protocol:"
    yield ""
    yield "```"
    yield protocol_line(scores)
    yield "```"
    yield ""
    yield f"- method: {printable(scores.method)}"
    yield f"- data fingerprint: {printable(scores.dataset_fingerprint)}"
    yield f"- split hash: {printable(scores.split_fingerprint)}"


def _threshold(scores: Scores) -> Iterator[str]:
    yield "## Threshold"
    yield ""
    if found := scores.verification:
        head, rows = threshold_table(found)
        yield threshold_words(found)
        yield ""
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        for row in rows:
            yield f"| {' | '.join(row)} |"
    else:
        yield printable(f"There is none: {why_no_threshold(scores)}.")
    yield ""


def _use(model: Model, onnx: str | None) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "import dmlray"
    yield ""
    yield 'model = dmlray.load_model("FOLDER")  # this folder'
    yield 'rows = model.embed(["one.jpg", "two.jpg"])  # (2, D) float32'
    yield 'dmlray.embed(model, ["photos"], "vectors")  # any number, into files'
    yield 'hits = dmlray.query(model, "vectors", "one.jpg", k=10)'
    yield "```"
    yield ""
    yield "As a model of sentence-transformers, whose class is dmlray's; the folder holds no code:"
    yield ""
    yield "```python"
    yield 'model = SentenceTransformer("FOLDER", trust_remote_code=True)'
    yield 'rows = model.encode(["one.jpg", "two.jpg"])  # the same vectors'
    yield "```"
    if onnx:
        yield ""
        yield f"`embed.onnx`: {onnx}. Inputs are `model.preprocess(image)`, stacked:"
        yield ""
        yield "```python"
        yield 'session = onnxruntime.InferenceSession("embed.onnx")'
        yield "crops = model.preprocess(image)  # name -> (3, S, S) uint8"
        yield "feed = {name: crop[None].numpy() for name, crop in crops.items()}"
        yield 'vectors = session.run(["embeddings"], feed)[0]'
        yield "```"


def _settings(model: Model) -> Iterator[str]:
    if not model.config.settings:
        return
    first = " of the first network" if len(model.config.branches) > 1 else ""
    yield f"## Settings{first}"
    yield ""
    yield "```yaml"
    for line in yaml.safe_dump(model.config.settings, sort_keys=False).splitlines():
        yield printable(line)
    yield "```"
