"""Official archives of data sets: where they are, and what to do when they are not.

Public addresses disappear, so every error names the command for a file from elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path

from dmlray import download
from dmlray.download import DownloadError, Progress, Remote
from dmlray.errors import Call, DataError


@dataclass(frozen=True)
class Source:
    """A public file of the data set `dataset`: `size` in bytes, `checksum` as ALGORITHM:HEX."""

    dataset: str
    file: str
    url: str
    size: int
    checksum: str


def fetch(source: Source, folder: Path, progress: Progress = lambda done, size: None) -> Path:
    """Fetch `source` into `folder`, from where `FILE.partial` ends; return the file, checked.

    Raises:
        DataError: If the address cannot be reached, gives another file, or the disk is full.
    """
    target, remote = folder / source.file, Remote(source.url, source.checksum, source.size)
    try:
        if target.exists() and not remote.matches(target):
            raise DataError(
                f"{target}: is not the official file ({source.checksum}): it was cut short or"
                " is another one. Delete it and run the command again."
            )
        download.fetch(remote, target, progress)
    except (DownloadError, OSError) as error:
        raise _not_fetched(source, folder, error) from error
    return target


def _not_fetched(source: Source, folder: Path, error: Exception) -> DataError:
    """The one sentence for a file that has to come from elsewhere."""
    failure = DataError(
        f"{source.url}: cannot be fetched ({error}). Put {source.file} from there or elsewhere into"
        f" {folder}"
    )
    file = str(folder / source.file)
    failure.resume = Call("prepare_data", {"name": source.dataset, "sources": file})
    return failure
