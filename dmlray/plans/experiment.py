"""An experiment: method + data + backbone + optimizer + budget + protocol."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from dmlray.backbones.trunk import BatchNorm, Pooling
from dmlray.config_model import ConfigModel
from dmlray.data.batches.augment import Transform
from dmlray.data.batches.samplers import Replacement, Sampling
from dmlray.data.cache.decode import MAX_PIXELS
from dmlray.data.datasets.train_test import Split
from dmlray.data.folds import Kind
from dmlray.evaluation.metrics import (
    can_choose,
    choosing,
    find,
    of_clustering,
    of_retrieval,
    standard_metrics,
)
from dmlray.local_paths import local_path
from dmlray.printable import shortened

ZERO_SHOT = "zero-shot"  # in place of a method's name, where nothing is trained
FOLDS = 4  # where the plan leaves their number open and the data set has classes enough


class MethodConfig(ConfigModel):
    """Method and its own settings; in a file both are below `method`."""

    name: str
    config: SerializeAsAny[ConfigModel]


class DataConfig(ConfigModel):
    """Which images, how they are cut and how they are dealt into batches."""

    name: str = Field("demo", description="data set: see `dmlray data list`")
    root: Path | None = Field(None, description="folder or file that lists the images")
    split: Split = Field(
        "classes",
        description="first half of the classes trains, or as given (own images), or all of them, "
        "which leaves no test classes",
    )
    skip_broken: bool = Field(
        False, description="leave out images that cannot be decoded; every score names them"
    )
    max_megapixels: float = Field(
        MAX_PIXELS / 1e6, gt=0, le=10_000, description="larger images are refused, in 10^6 pixels"
    )
    batch_size: int = Field(64, ge=1, le=65_536, description="images per step, over all workers")
    images_per_class: int | None = Field(
        None, ge=1, le=1024, description="images of each class in a batch; null shuffles plainly"
    )
    replacement: Replacement = Field(
        "none", description="what a batch of images_per_class may hold twice: an image, a class"
    )
    categories: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="super-classes (column category) that fill a batch of images_per_class, as "
        "hard negatives; null: any",
    )
    transform: Transform = Field(default_factory=lambda: Transform())

    @property
    def max_pixels(self) -> int:
        """`max_megapixels` in pixels."""
        return round(self.max_megapixels * 1e6)

    def sampling(self, seed: int, views: int = 1) -> Sampling:
        """How batches are sampled."""
        return Sampling(
            self.batch_size, self.images_per_class, seed, self.replacement, views, self.categories
        )

    @field_validator("root", mode="before")
    @classmethod
    def _from_anywhere(cls, root: Any) -> Any:
        if not isinstance(root, str | Path):
            return root
        return local_path(root).absolute()  # workers stand in other folders

    @model_validator(mode="after")
    def _whole_classes(self) -> "DataConfig":
        if self.images_per_class and self.batch_size % self.images_per_class:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by images_per_class "
                f"{self.images_per_class}. Allowed: a multiple of {self.images_per_class}"
            )
        if self.categories and not (self.images_per_class and self.replacement == "none"):
            raise ValueError(
                "categories needs images_per_class, and replacement none. Allowed: null otherwise"
            )
        return self


class BackboneConfig(ConfigModel):
    """The network below the heads."""

    name: str = Field("resnet50", description="torchvision's or timm's name")
    weights: str = Field("pretrained", description="pretrained, none, or a file of tensors")
    pooling: Pooling = Field(
        "avg", description="map -> feature; native: as the network's own classifier has it (timm)"
    )
    batchnorm: BatchNorm = Field(
        "train", description="frozen_statistics trains the affine weights, as IDML and RCDML do"
    )
    frozen: bool = Field(
        False,
        description="train the heads only, on features computed once, without random crops",
    )

    @field_validator("weights")
    @classmethod
    def _from_anywhere(cls, weights: str) -> str:
        named = weights in ("pretrained", "none")
        return weights if named else str(local_path(weights).absolute())


class OptimizerConfig(ConfigModel):
    """How gradients become steps. Learning rates of groups are factors of `lr`."""

    name: Literal["adamw", "adam", "sgd", "rmsprop"] = Field("adamw", description="algorithm")
    lr: float = Field(1e-4, gt=0, le=1, description="learning rate of the trunk")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="decay of all groups")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop")
    schedule: Literal["constant", "linear", "cosine", "step", "multistep"] = Field(
        "constant", description="linear and cosine fall to 0 step by step, the others by epoch"
    )
    step_epochs: int = Field(10, ge=1, le=1000, description="epochs between drops, for `step`")
    milestones: tuple[float, ...] = Field(
        (0.5, 0.7), description="fractions of the epochs at which `multistep` drops"
    )
    early_epochs: int = Field(
        0, ge=0, le=1, description="epochs by which `multistep` drops early; 1 as leftthomas does"
    )
    milestone_rounding: Literal["down", "up"] = Field(
        "down", description="which whole epoch a milestone within an epoch means"
    )
    gamma: float = Field(0.5, gt=0, le=1, description="factor of each drop, unitless")
    warmup_steps: int = Field(0, ge=0, le=100_000, description="steps of linear rise of lr")
    clip_value: float | None = Field(None, gt=0, le=1e6, description="largest gradient entry")
    clip_norm: float | None = Field(None, gt=0, le=1e6, description="largest norm of each group")


class BudgetConfig(ConfigModel):
    """How long to learn."""

    epochs: int = Field(
        10,
        ge=0,
        le=10_000,
        description="passes over the training images; 0 scores the backbone as it is",
    )
    warmup_epochs: int = Field(0, ge=0, le=1000, description="first epochs with the trunk at rest")
    head_warmup_steps: int = Field(
        0, ge=0, le=100_000, description="steps of heads alone on features computed once"
    )
    head_warmup_lr: float = Field(1e-3, gt=0, le=1, description="learning rate of these steps")
    workers: int = Field(1, ge=1, le=1024, description="devices that share each batch of a train")
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "float32",
        description="of trunk and heads in training; losses and scores stay float32. auto: "
        "bfloat16 where the GPU has it, tf32 on others, float32 on CPUs",
    )
    cudnn_benchmark: bool = Field(
        True, description="time cuDNN's algorithms and train by the fastest; GPUs only"
    )
    compile: bool = Field(
        False, description="compile the trunk by torch.compile; the first step takes minutes"
    )


class ProtocolConfig(ConfigModel):
    """How a score is won: see `dmlray show` for the rule that a run used."""

    folds: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="class-disjoint parts of the train classes; null: 4, or as many as can do",
    )
    split: Kind = Field(
        "kfold", description="how train classes become folds: runs, as MLRC cuts, or shuffled"
    )
    split_seed: int = Field(0, ge=0, lt=2**31, description="of the shuffle of `seeded` folds")
    selection: Literal["validation", "last", "best_on_test"] = Field(
        "validation",
        description="validation: best epoch on a held-out fold; last: all training classes, no "
        "choice; best_on_test: the authors' rule, for comparing with their tables only",
    )
    fold: int = Field(0, ge=0, le=999, description="which fold `validation` holds out")
    metric: str = Field(
        "map_at_r",
        description="score that chooses epochs and settings: map_at_r, r_precision, recall_at_1, "
        "or another retrieval metric",
    )
    recall_at: tuple[int, ...] = Field((1, 2, 4, 8), description="K of each Recall@K, neighbours")
    nmi: bool = Field(False, description="also cluster the test embeddings; slow for many classes")
    extra_metrics: tuple[str, ...] = Field(
        (),
        description="beside Recall@K, R-Precision and MAP@R: precision_at_K, "
        "mean_average_precision_at_K; of test classes also ami, pairwise_f1 (k-means, as nmi)",
    )
    tuned_by: str | None = Field(None, description="how the settings themselves were chosen")

    @field_validator("metric")
    @classmethod
    def _chooses(cls, name: str) -> str:
        if not can_choose(name):
            allowed = f"{', '.join(choosing())}, K at least 1"
            raise ValueError(f"{shortened(name)} is not allowed. Allowed: {allowed}")
        return name

    @field_validator("extra_metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            find(name)
        return names

    @model_validator(mode="after")
    def _possible(self) -> "ProtocolConfig":
        if self.fold >= self.fold_count:
            raise ValueError(
                f"fold {self.fold} does not exist. Allowed: 0 to {self.fold_count - 1}"
            )
        if not self.recall_at or min(self.recall_at) < 1:
            raise ValueError("recall_at: K must be whole numbers of at least 1")
        return self

    @property
    def fold_count(self) -> int:
        """The number of folds; `training.with_folds` fits one that is left open to the data set."""
        return self.folds or FOLDS

    def cut(self) -> str:
        """How the training classes become folds, in words."""
        seed = f" of seed {self.split_seed}" if self.split == "seeded" else ""
        return f"{self.fold_count} {self.split} folds{seed}"

    def classes(self) -> str:
        """Which classes are trained on, in words."""
        if self.selection != "validation":
            return "all training classes"
        return f"all but fold {self.fold} of {self.cut()}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics of the test classes."""
        asked = (*standard_metrics(self.recall_at), self.metric)
        return tuple(dict.fromkeys([*asked, *["nmi"] * self.nmi, *self.extra_metrics]))

    def retrieval_metrics(self, neighbours: int) -> tuple[str, ...]:
        """Names of those that so many `neighbours` of a query allow, without k-means."""
        return of_retrieval(self.metrics, neighbours)

    @property
    def clustering_metrics(self) -> tuple[str, ...]:
        """Names of those that need k-means."""
        return of_clustering(self.metrics)


class Experiment(ConfigModel):
    """All that a training is; means the same on a laptop and on a cluster."""

    method: MethodConfig
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    backbone: BackboneConfig = Field(default_factory=lambda: BackboneConfig())
    optimizer: OptimizerConfig = Field(default_factory=lambda: OptimizerConfig())
    budget: BudgetConfig = Field(default_factory=lambda: BudgetConfig())
    protocol: ProtocolConfig = Field(default_factory=lambda: ProtocolConfig())
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    loggers: tuple[str, ...] = Field(
        ("tensorboard",), description="what logs each epoch: files of reporting/loggers, or none"
    )

    @field_validator("loggers")
    @classmethod
    def _once_each(cls, loggers: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((name for name in loggers if loggers.count(name) > 1), None)
        if twice:
            raise ValueError(f"{shortened(twice)} is named twice. Allowed: once")
        return loggers

    @model_validator(mode="after")
    def _an_image_each(self) -> "Experiment":
        if self.data.batch_size < self.budget.workers:
            raise ValueError(
                f"budget.workers {self.budget.workers} are more than the {self.data.batch_size} "
                "images of a batch. Allowed: at most data.batch_size"
            )
        return self

    @model_validator(mode="after")
    def _classes_to_choose_on(self) -> "Experiment":
        if self.data.split == "all" and self.protocol.selection == "best_on_test":
            raise ValueError(
                "protocol.selection best_on_test needs test classes, and data.split all leaves "
                "none. Allowed: validation, last"
            )
        return self

    @property
    def trains(self) -> bool:
        """Whether anything is trained; else the backbone's pooled features are scored."""
        return self.budget.epochs > 0

    @property
    def scored_as(self) -> str:
        """What its scores name as the method."""
        return self.method.name if self.trains else ZERO_SHOT

    def document(self) -> dict[str, Any]:
        """The plain nested form that a YAML file holds: legal to read back."""
        content = self.model_dump(mode="json")
        method = content.pop("method")
        return {"method": {"name": method["name"], **method["config"]}, **content}
