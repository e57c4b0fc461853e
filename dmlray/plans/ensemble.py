"""An ensemble: an experiment, how many members, and what differs between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from dmlray.errors import ConfigError
from dmlray.plans.config_sources import ConfigSource, Source, differences, flatten, read_source
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import Resolved, override, resolve, write_plan
from dmlray.printable import shortened

Vary = Literal["meta_classes", "seed", "fold", "settings", "new_seed"]
MOST_MEMBERS = 10_000
_SHARED = (  # of several experiments: they are scored together
    "data.name", "data.root", "data.split", "protocol.recall_at", "protocol.extra_metrics",
)  # fmt: skip
_SEED_STRIDE = 100_003  # prime: seeds of two ensembles meet only after so many members


@dataclass(frozen=True)
class Ensemble:
    """Trainings of one setting or several: `ensemble` merges them, `cv` and `repeat` average.

    `seed` trains the experiment again and again; `meta_classes` also deals classes anew for each
    member; `fold` lets each hold out other classes; `settings` gives the members the experiments
    in turn, of which `experiment` is the first and `others` are the rest; `new_seed` counts on
    from the experiment's seed, with which a search may have chosen the setting, and leaves it out.
    """

    experiment: Experiment
    size: int
    vary: Vary
    others: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST_MEMBERS:
            allowed = f"at least 1 and at most {MOST_MEMBERS}"
            raise ConfigError("`size`", [f"{self.size} is not allowed. Allowed: {allowed}"])
        if self.vary not in get_args(Vary):
            allowed = ", ".join(get_args(Vary))
            raise ConfigError("`vary`", [f"{self.vary!r} is not allowed. Allowed: {allowed}"])
        for experiment in (self.experiment, *self.others):
            _check_members(experiment)
        problem = self._problem()
        if problem:
            raise ConfigError("`vary`", [problem])

    def member(self, index: int) -> Experiment:
        """Member `index`, a function of (seed, index) alone: the same on 1 and on 8 devices."""
        if index not in self._members:
            self._members[index] = self._make_member(index)
        return self._members[index]

    @cached_property
    def _members(self) -> dict[int, Experiment]:
        """Members that were made: the queue, the recovery and the merge each ask for all."""
        return {}

    def _make_member(self, index: int) -> Experiment:
        own = (self.experiment, *self.others)[self.setting(index)]
        protocol = self.experiment.protocol
        seed = (self.experiment.seed * _SEED_STRIDE + index) % 2**31
        changes: dict[str, Any] = {"seed": seed}
        if self.vary == "meta_classes":
            changes["method.draw_seed"] = seed
        if self.vary == "fold":
            turn, changes["protocol.fold"] = divmod(index, protocol.fold_count)
            changes["seed"] = seed if turn else self.experiment.seed
        if self.vary == "new_seed":
            changes["seed"] = (self.experiment.seed + 1 + index) % 2**31
        return override(own, f"member {index}", changes)

    def setting(self, index: int) -> int:
        """Which of the experiments member `index` trains."""
        return index % (len(self.others) + 1)

    def differences(self, other: "Ensemble") -> list[str]:
        """In what `other` is not this plan, one sentence each; folds left open are as here."""
        ours, theirs = flatten(self._numbered()), flatten(other._numbered())
        for key in [key for key in theirs if key.endswith("protocol.folds")]:
            theirs[key] = theirs[key] or ours.get(key)
        return differences(ours, theirs)

    def document(self) -> dict[str, Any]:
        """The plain form that `ensemble.yaml` holds."""
        others = [other.document() for other in self.others]
        return {
            "size": self.size,
            "vary": self.vary,
            "experiment": self.experiment.document(),
            **({"others": others} if others else {}),
        }

    def _numbered(self) -> dict[str, Any]:
        """The document with a key for each setting, so that it can be compared key by key."""
        others = {str(number): plan.document() for number, plan in enumerate(self.others, 1)}
        return {**self.document(), "others": others}

    def write(self, path: Path) -> None:
        """Write the plan, enough to run it again."""
        write_plan(path, self.document())

    def _problem(self) -> str | None:
        """What `vary` asks of the experiments and does not find."""
        protocol, several = self.experiment.protocol, len(self.others) + 1
        match self.vary:
            case "meta_classes" if not hasattr(self.experiment.method.config, "draw_seed"):
                return f"{self.experiment.method.name} has no meta-classes. Allowed: seed"
            case "fold" if protocol.selection != "validation":
                selection = f"protocol.selection={protocol.selection} holds out no fold"
                return f"fold: {selection}. Allowed: protocol.selection=validation"
            case "settings" if not 2 <= several <= self.size:
                allowed = f"Allowed: 2 to `size` {self.size} of them (`experiments`)"
                return f"settings of {several} experiments are not possible. {allowed}"
            case "settings":
                return next(filter(None, map(self._strange, self.others)), None)
        return "several experiments vary settings alone" if self.others else None

    def _strange(self, other: Experiment) -> str | None:
        """Where `other` could not be scored together with the first experiment."""
        for key in _SHARED:
            ours, theirs = (flatten(plan.document())[key] for plan in (self.experiment, other))
            if ours != theirs:
                return f"settings: {key} is {ours} and {theirs}. Allowed: one test set for all"
        return None


def _check_members(experiment: Experiment) -> None:
    """Refuse an experiment whose members could not be scored, or would be equal."""
    if not experiment.trains:
        raise ConfigError("budget.epochs", ["0 trains no members. Allowed: at least 1"])
    if experiment.data.split == "all":
        problem = "all leaves no test classes, on which members are scored"
        raise ConfigError("data.split", [f"{problem}. Allowed: classes, given"])


def default_vary(experiment: Experiment) -> Vary:
    """Meta-classes where the method deals them, else seeds."""
    return "meta_classes" if hasattr(experiment.method.config, "draw_seed") else "seed"


def cross_validation(experiment: Experiment) -> Ensemble:
    """One member per fold, each at the epoch that its held-out classes choose."""
    chosen = override(experiment, "cv", {"protocol.selection": "validation"})
    return Ensemble(chosen, chosen.protocol.fold_count, "fold")


def repeats(experiment: Experiment, size: int) -> Ensemble:
    """The experiment `size` times, by its own selection rule, with seeds that are not its own.

    Raises:
        ConfigError: If `size` is below 1.
    """
    if size < 1:
        raise ConfigError("`size`", [f"{size} is not allowed. Allowed: at least 1"])
    return Ensemble(experiment, size, "new_seed")


@dataclass(frozen=True)
class ResolvedEnsemble:
    """A checked ensemble, and where its own settings and those of its experiments are from."""

    ensemble: Ensemble
    origins: dict[str, str]
    experiments: tuple[Resolved, ...]


def read_ensemble(path: Path, overrides: Sequence[ConfigSource] = ()) -> Ensemble:
    """Read the plan of a run folder.

    Raises:
        ConfigError: If it is damaged.
    """
    return resolve_ensemble(path, overrides).ensemble


def is_ensemble(plan: ConfigSource) -> bool:
    """Whether these are the keys of an ensemble, a cross-validation or a repeat."""
    return {"size", "vary"} <= plan.values.keys()


def resolve_ensemble(source: Source, overrides: Sequence[ConfigSource] = ()) -> ResolvedEnsemble:
    """Read the plan of a run folder as `read_ensemble` does, and keep the origin of each value."""
    source_config = read_source(source, "file")
    path = source_config.name
    problems = [f"is no plan of an ensemble: {problem}" for problem in _wrong(source_config.values)]
    if problems:
        raise ConfigError(str(path), problems)
    documents = [
        source_config.below("experiment"),
        *(
            ConfigSource("others", flatten(other))
            for other in source_config.values.get("others", [])
        ),
    ]
    resolved = tuple(resolve(str(path), [document, *overrides]) for document in documents)
    size, vary = source_config.values["size"], source_config.values["vary"]
    experiment, *rest = (each.experiment for each in resolved)
    try:
        ensemble = Ensemble(experiment, size, vary, tuple(rest))
        return ResolvedEnsemble(
            ensemble, {key: source_config.location(key) for key in ("size", "vary")}, resolved
        )
    except ConfigError as error:  # which names a parameter
        raise ConfigError(str(path), error.problems) from None


def _wrong(values: Mapping[str, Any]) -> Iterator[str]:
    """What a plan must not hold, one sentence each."""
    size, vary, others = (values.get(key) for key in ("size", "vary", "others"))
    if type(size) is not int or not 1 <= size <= MOST_MEMBERS:
        allowed = f"a whole number in [1, {MOST_MEMBERS}]"
        yield f"size: {shortened(size)} is not allowed. Allowed: {allowed}"
    if vary not in get_args(Vary):
        yield f"vary: {shortened(vary)} is not allowed. Allowed: {', '.join(get_args(Vary))}"
    if others is not None and not (
        isinstance(others, list) and all(isinstance(other, dict) for other in others)
    ):
        yield f"others: {shortened(others)} is not allowed. Allowed: a list of experiments"
    known = ("size", "vary", "others", "experiment")
    for key in dict.fromkeys(key.partition(".")[0] for key in values):
        if key not in known:
            yield f"{key}: unknown key. Allowed: {', '.join(known)}"
        elif key not in values and key != "experiment":
            yield f"{key}: is a group of keys, not a value"
