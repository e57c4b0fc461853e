"""Where the experiment and search files are that users name."""

import os
from collections.abc import Sequence
from pathlib import Path

from dmlray.errors import ConfigError
from dmlray.nearest_names import did_you_mean, nearest_or_all

FOLDERS = ("experiments", "searches")
BENCHMARKS = "benchmark_plans"
_WORDS = {"experiments": "experiment", "searches": "search", BENCHMARKS: "benchmark"}
_SUFFIXES = (".yaml", ".yml")


def find(path: Path, folders: Sequence[str] = FOLDERS) -> Path:
    """Find a file by its path, below the current folder or dmlray's own, or by its bare name.

    Args:
        path: Path or bare name.
        folders: Where a bare name such as `dreml_demo` is looked for, here and in dmlray.

    Raises:
        ConfigError: If there is no such file, or the name is that of several.
        OSError: If it cannot be looked for.
    """
    if path.is_file():
        return path
    if _is_bare(path):
        files = [Path(folder, f"{path}.yaml") for folder in folders]
        named = {file: found for file in files if (found := _named(file))}
        if len(named) > 1:
            both = " or ".join(map(str, named))
            raise ConfigError(str(path), [f"is the name of several files. Allowed: {both}"])
        found = next(iter(named.values()), None)
    else:
        found = _named(path)
    if found:
        return found
    if os.path.lexists(path):
        return path  # a folder, a pipe, a broken link: reading it names the problem
    raise ConfigError(str(path), [_unknown(path, folders)])


def prefer_experiment(path: Path) -> Path:
    """Return the experiment of a bare name that a search has too; any other path as it is."""
    try:
        known = path.is_file() or not _is_bare(path)
        return path if known else _named(Path(FOLDERS[0], f"{path}.yaml")) or path
    except OSError:  # reading it names the problem
        return path


def shipped(folders: Sequence[str] = (*FOLDERS, BENCHMARKS)) -> list[str]:
    """Paths of the files that come with dmlray, from its own folder."""
    home = _home()
    files = (file for folder in folders for file in (home / folder).glob("*.yaml"))
    return sorted(file.relative_to(home).as_posix() for file in files)


def _home() -> Path:
    """The folder of the files that come with dmlray: the package's own, or the checkout's."""
    package = Path(__file__).parents[1]
    return package if (package / FOLDERS[0]).is_dir() else package.parent


def _named(path: Path) -> Path | None:
    """The plan file of this path here or, failing that, in dmlray."""
    candidates = (path, _home() / path)
    return next((c for c in candidates if c.suffix in _SUFFIXES and c.is_file()), None)


def _is_bare(path: Path) -> bool:
    return path.parent == Path() and path.suffix not in _SUFFIXES


def _unknown(path: Path, folders: Sequence[str]) -> str:
    known, what = shipped(folders), " or ".join(_WORDS[f] for f in folders)
    names = dict.fromkeys(Path(file).stem for file in known)
    if not _is_bare(path):
        some = f" Allowed: a path, or a name such as {next(iter(names))}."
        return f"no such file.{did_you_mean(path.as_posix(), known, most=3) or some}"
    return f"no such file or {what} of dmlray.{nearest_or_all(path.name, names, most=3)}"
