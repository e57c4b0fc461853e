"""Sections of a benchmark file, joined with the command line and checked for their names."""

import re
from collections.abc import Iterator, Sequence

from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import ConfigSource, flatten, is_inside
from dmlray.plans.experiment import Experiment
from dmlray.printable import shortened

SECTIONS = ("budget", "search", "set", "datasets", "methods")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")  # of a folder


def joined(file: ConfigSource, overrides: ConfigSource, budget: Sequence[str]) -> ConfigSource:
    """The file with overrides above it; keys of experiments go to `set`.

    Args:
        file: What the file holds.
        overrides: What stands above it.
        budget: Names below `budget` that are the benchmark's own, not its experiments'.
    """

    def full_key(key: str) -> str:
        section, _, rest = key.partition(".")
        own = section in SECTIONS and (section != "budget" or rest.split(".")[0] in budget)
        return f"set.{key}" if section in Experiment.model_fields and not own else key

    new = flatten({full_key(key): value for key, value in overrides.values.items()})
    replaced = {full_key(key) for key in overrides.values}
    kept = file.only(lambda key: not is_inside(key, replaced))
    texts = {full_key(key): text for key, text in overrides.texts.items()}
    kept_texts = {key: text for key, text in file.texts.items() if key in kept.values}
    locations = {**file.locations, **dict.fromkeys(new, overrides.name)}
    return ConfigSource(file.name, {**kept.values, **new}, locations, {**kept_texts, **texts})


def check_sections(source: ConfigSource) -> Iterator[str]:
    """Unknown sections, and values where groups of keys belong."""
    for name in dict.fromkeys(key.split(".")[0] for key in source.values):
        if name not in SECTIONS:
            yield f"{source.location(name)}  {name}: unknown key.{nearest_or_all(name, SECTIONS)}"
        elif name in source.values and source.values[name] not in ({}, None):
            value = shortened(source.values[name])
            yield f"{source.location(name)}  {name}: {value} is not allowed. Allowed: a group"


def unknown_keys(
    source: ConfigSource, section: str, refused: set[str], reason: str
) -> Iterator[str]:
    """Keys of a section that do not belong there."""
    for key in source.below(section).values:
        if key.split(".")[0] in refused:
            full = f"{section}.{key}"
            yield f"{source.location(full)}  {full}: is not allowed here, {reason}"


def check_names(source: ConfigSource, section: str, found: list[str]) -> list[str]:
    """Names below a section, which are folders of a run; problems are added to `found`."""
    names = list(dict.fromkeys(key.split(".")[0] for key in source.below(section).values))
    if not names:
        what = section.removesuffix("s")
        found.append(f"{section}: is empty. Allowed: a name and what it is, for each {what}")
    for name in names:
        if not _NAME.fullmatch(name):
            allowed = "letters, digits and _ + -"
            found.append(
                f"{section}: the name {shortened(name)} is not allowed. Allowed: {allowed}"
            )
    return [name for name in names if _NAME.fullmatch(name)]
