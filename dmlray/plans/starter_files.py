"""The experiment and the search that `dmlray init` writes, with a comment on each choice."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from dmlray.data.datasets.survey import Survey
from dmlray.plans.starter import Schedule, Settings
from dmlray.printable import printable

Line = tuple[str, str]  # YAML, and the comment beside it
_COLUMN = 52


def experiment_text(images: Survey, settings: Settings, schedule: Schedule) -> str:
    """The experiment, as YAML."""
    least, median, most = images.short_side
    return _text(
        [
            f"# {len(images.dataset)} images of {len(images.dataset.classes)} classes in "
            f"{printable(str(images.source))},",
            f"# shorter side {median} pixels in the median ({least} to {most}).",
            "# `dmlray show FILE` prints every setting, also those that are not here.",
        ],
        [
            ("method:", ""),
            (
                "  name: proxy_anchor",
                "one proxy per class: fast, and needs no pairs; `dmlray methods`",
            ),
            (f"  dim: {settings.dim}", "numbers per image; more cost memory in retrieval"),
            ("  proxy_lr_factor: 30", "proxies start at random and must move faster"),
            ("  head_lr_factor: 3", "the head is new, the backbone is trained already"),
            *_data(images, settings),
            *_network(settings),
            *_training(settings, schedule),
            *_protocol(images),
        ],
    )


def search_text(experiment: Path, schedule: Schedule) -> str:
    """The search around the experiment, as YAML."""
    return _text(
        ["# A search of about an hour around the experiment; trial 0 is the experiment itself."],
        [
            (f"experiment: {_scalar(experiment.absolute())}", ""),
            (
                f"folds: {schedule.folds}",
                "class-disjoint parts of the training classes, each held out once",
            ),
            ("set:", ""),
            (
                f"  budget.epochs: {schedule.trial_epochs}",
                "of each trial: so that enough trials fit into the hour",
            ),
            (
                "use_method_space: false",
                "only what matters most; true searches all that the method names",
            ),
            ("space:", ""),
            ("  method.margin: {low: 0.0, high: 0.4}", "slack on the cosine"),
            ("  method.alpha: {low: 8, high: 64, log: true}", "how much harder images count"),
            ("  method.proxy_lr_factor: {low: 10, high: 300, log: true}", "speed of the proxies"),
            ("  optimizer.lr: {low: 3.0e-5, high: 1.0e-3, log: true}", "matters most"),
            (f"trials: {schedule.trials}", "different points"),
            (
                f"startup_trials: {min(10, schedule.trials // 2)}",
                "random ones, before tpe suggests",
            ),
            ("scheduler: asha", "stops the worse trials early, about half of all epochs"),
            ("time_budget: 1h", "no trial begins after it"),
        ],
    )


def duration(seconds: float) -> str:
    """A span of time in words, rounded."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def _data(images: Survey, settings: Settings) -> list[Line]:
    data, size = images.dataset, settings.size
    tested = len(data.classes) - data.train_classes
    sides = f"{data.train_classes} classes train, {tested} are never seen before the final scores"
    split = f"first half by name: {sides}" if images.split == "classes" else f"as given: {sides}"
    broken = [("  skip_broken: true", _broken(images))] if images.broken else []
    each = settings.images_per_class
    batch = f"{settings.batch_size // each} classes of {each} images" if each else "few classes"
    cache = "of the cache that crops are cut from; originals are much larger"
    return [
        ("data:", ""),
        (f"  name: {data.name}", ""),
        (f"  root: {_scalar(images.source.absolute())}", ""),
        (f"  split: {images.split}", split),
        *broken,
        (f"  batch_size: {settings.batch_size}", batch),
        (f"  images_per_class: {each or 'null'}", "in a batch" if each else "batches are shuffled"),
        ("  transform:", ""),
        (f"    size: {size}", _why_size(images, settings)),
        *([(f"    resize: {settings.resize}", f"short side {cache}")] if settings.resize else []),
        (f"    eval_resize: {settings.eval_resize}", "short side before the centre crop"),
        ("    crop: random_resized", "a random part of the image"),
        ("    scale: [0.16, 1.0]", "of so much of its area"),
        ("    flip: 0.5", "0 where left and right differ in meaning, as in text"),
    ]


def _network(settings: Settings) -> list[Line]:
    why = {
        "resnet50": "the usual one on a GPU; ImageNet weights, fetched once",
        "efficientnet_lite0": "small enough for CPUs; its weights come with dmlray[demo]",
        "resnet18": "small; ImageNet weights, fetched once (dmlray[demo] brings a faster one)",
    }
    return [
        ("backbone:", ""),
        (f"  name: {settings.backbone}", why[settings.backbone]),
        ("  pooling: avg+max", "as Proxy-Anchor's authors pool"),
        ("  batchnorm: frozen_statistics", "ImageNet's statistics: batches here are small"),
    ]


def _training(settings: Settings, schedule: Schedule) -> list[Line]:
    precision = [("  precision: auto", "bfloat16 where the GPU has it")] if settings.gpu else []
    minutes = f"about {duration(schedule.seconds)}, as measured on this machine"
    return [
        ("optimizer:", ""),
        ("  name: adamw", ""),
        (
            f"  lr: {'1.0e-4' if settings.gpu else '3.0e-4'}",
            "of the backbone; first of all to be searched",
        ),
        ("  schedule: linear", "falls to 0 over the epochs"),
        ("  warmup_steps: 5", ""),
        ("budget:", ""),
        (f"  epochs: {schedule.epochs}", minutes),
        ("  head_warmup_steps: 200", "the head alone first, on features computed once"),
        *precision,
    ]


def _protocol(images: Survey) -> list[Line]:
    if images.fold_counts:
        rule = ("  selection: validation", "the epoch is chosen on a fold of the training classes")
    else:
        rule = ("  selection: last", "too few training classes for a fold to choose epochs on")
    return [
        ("protocol:", ""),
        rule,
        ("  metric: map_at_r", "by which epochs and trials are compared"),
    ]


def _why_size(images: Survey, settings: Settings) -> str:
    if settings.size > images.short_side[1]:
        return "pixels; the images are smaller and are enlarged"
    return "pixels; time grows with its square"


def _broken(images: Survey) -> str:
    first = next(iter(images.broken))
    return f"{len(images.broken)} images cannot be decoded, first {printable(first)}"


def _scalar(path: Path) -> str:
    """A path as YAML, on one line whatever is in it."""
    return yaml.safe_dump(str(path), width=float("inf"), allow_unicode=True).splitlines()[0]


def _text(head: Sequence[str], lines: Sequence[Line]) -> str:
    body = [f"{text:<{_COLUMN}}  # {why}" if why else text for text, why in lines]
    return "\n".join([*head, *body]) + "\n"
