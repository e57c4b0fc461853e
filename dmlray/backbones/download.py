"""Download published weights once per machine; checked by the hash in the file name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch

from dmlray import download
from dmlray.download import DownloadError, Progress, Remote
from dmlray.errors import DataError

_HASH = re.compile(r"-([0-9a-f]{8,64})\.")


def fetched(name: str, address: str) -> Path:
    """Return the path of the file at `address` in torch.hub's cache (TORCH_HOME), downloaded once.

    Raises:
        DataError: If it is not in the cache and cannot be downloaded.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(address).path).name)
    remote = Remote(address, _checksum_in(path.name))
    try:
        if not (path.is_file() and remote.matches(path)):  # else nothing is written beside it
            with _bar(path.name) as progress:
                download.fetch(remote, path, progress)
    except (DownloadError, OSError) as error:
        raise unreachable(name, address, error) from error
    return path


def unreachable(name: str, address: str, error: Exception) -> DataError:
    """The one sentence for weights that cannot be fetched."""
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return DataError(
        f"backbone {name}: its pretrained weights cannot be fetched from {address} ({reason}); "
        "set backbone.weights=FILE to that file, or use random weights with "
        "backbone.weights=none"
    )


def _checksum_in(file: str) -> str | None:
    """The first digits of the file's SHA-256, where its publisher put them into its name."""
    found = _HASH.search(file)
    return f"sha256:{found.group(1)}" if found else None


@contextmanager
def _bar(file: str) -> Iterator[Progress]:
    """Show a bar in a terminal, nothing in a log."""
    from rich import progress  # not needed where weights are there already
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
    )
    with progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(file, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)
