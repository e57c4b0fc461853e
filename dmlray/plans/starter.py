"""Default settings for new images, and how long they may take.

They come from what the images are and from how fast this machine trains.
"""

from dataclasses import dataclass
from math import ceil, sqrt

from dmlray.data.datasets.survey import Survey

SIZES = (64, 96, 128, 160, 192, 224)  # pixels
HOUR, TRAINING = 3600.0, 600.0  # seconds of a search, and of one training
_SCORING = 1 / 3  # cost of embedding an image over that of training on it
_STOPPED = 1 / 2  # share of a search's epochs that ASHA leaves
_FEW_EPOCHS = 5
_FEW_TRIALS = 10  # fewer are no search: then folds are given up first


@dataclass(frozen=True)
class Settings:
    """What an experiment begins with; `resize` and `eval_resize` are short sides in pixels."""

    gpu: bool
    backbone: str
    size: int
    resize: int | None
    eval_resize: int
    batch_size: int
    images_per_class: int | None

    @property
    def dim(self) -> int:
        """The dimension of the embedding."""
        return 512 if self.gpu else 128


@dataclass(frozen=True)
class Schedule:
    """What fits into the time: epochs of one training, and a search, where folds are possible.

    `seconds` is the training's, `search_seconds` the search's, if nothing slows anything down.
    """

    epochs: int
    seconds: float
    folds: int | None
    trials: int
    trial_epochs: int
    search_seconds: float

    @property
    def is_long_enough(self) -> bool:
        """Whether a training has epochs enough to learn something; smaller images allow more."""
        return self.epochs >= _FEW_EPOCHS


def image_sizes(images: Survey, *, gpu: bool) -> list[int]:
    """Sides of the network's input to consider, pixels, the largest first: none enlarges images."""
    most = min(images.short_side[1], 224 if gpu else 128)
    return [size for size in reversed(SIZES) if size <= max(SIZES[0], most)]


def choose_settings(images: Survey, size: int, *, gpu: bool, packaged: bool) -> Settings:
    """Choose batch and backbone for images of `size` pixels.

    Args:
        images: Counts of the images.
        size: Side of the network's input, pixels.
        gpu: Whether a GPU trains.
        packaged: The weights of efficientnet_lite0 are installed, so that nothing is downloaded.
    """
    median = images.short_side[1]
    eval_resize = max(size, min(round(size * 256 / 224), median))
    each, batch_size = _batch(images, most=30 if gpu else 16)
    return Settings(
        gpu=gpu,
        backbone="resnet50" if gpu else "efficientnet_lite0" if packaged else "resnet18",
        size=size,
        resize=eval_resize if median > 2 * eval_resize else None,
        eval_resize=eval_resize,
        batch_size=batch_size,
        images_per_class=each,
    )


def choose_schedule(images: Survey, speed: float, devices: int) -> Schedule:
    """Fit a training into 10 minutes and a search into an hour.

    Args:
        images: Counts of the images.
        speed: Images that one device trains on per second.
        devices: Trials are trained side by side on so many.
    """
    epoch = images.train_images / speed  # seconds
    epochs = _within(2, int(TRAINING / epoch), 40)
    search = Schedule(epochs, epochs * epoch, None, 0, 0, 0.0)
    for folds in _fold_counts(images):
        each = epoch * (folds - 1 + _SCORING) / devices  # seconds of a trial's epoch
        in_all = HOUR / (_STOPPED * each)
        trial_epochs = _within(2, int(sqrt(in_all / 2)), 20)
        trials = _within(4, int(in_all / trial_epochs), 50)
        seconds = _STOPPED * trials * trial_epochs * each
        search = Schedule(epochs, epochs * epoch, folds, trials, trial_epochs, seconds)
        if trials >= _FEW_TRIALS:
            break
    return search


def _fold_counts(images: Survey) -> list[int]:
    """Numbers of folds to try, the best first: as many as can be up to 4, then the fewest."""
    usual = [count for count in images.fold_counts if count <= 4]
    return sorted({usual[-1], usual[0]}, reverse=True) if usual else []


def _batch(images: Survey, most: int) -> tuple[int | None, int]:
    """Images of each class in a batch, or None where classes are few, and the batch size."""
    classes = images.dataset.train_classes
    counts = images.fold_counts or (1,)
    fewest = classes - ceil(classes / min(counts)) if images.fold_counts else classes
    if fewest >= most // 2:
        return 4, 4 * min(most, fewest)
    return None, _within(2, images.train_images // 4, 32)


def _within(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
