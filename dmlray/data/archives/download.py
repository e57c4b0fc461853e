"""Official archives of data sets: where they are, and what to do when they are not.

Public addresses rot, so every failure says how to continue with a file from elsewhere.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from dmlray import download
from dmlray.download import DownloadError, Progress, Remote
from dmlray.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """A public file of the data set `dataset`: `size` in bytes, `checksum` as ALGORITHM:HEX."""

    dataset: str
    file: str
    url: str
    size: int
    checksum: str


SOURCES = {
    source.dataset: source
    for source in (
        Source(
            "cub",
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            1_150_585_339,
            "md5:97eceeb196236b17998738112f37df78",
        ),
        Source(
            "sop",
            "Stanford_Online_Products.zip",
            "http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
            3_083_860_082,
            "sha256:b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48",
        ),
    )
}


def known(dataset: str) -> Source:
    """The public source of the data set `dataset`.

    Raises:
        ConfigError: If it has none.
    """
    if dataset in SOURCES:
        return SOURCES[dataset]
    if dataset == "cars":
        problem = (
            "the official address of Cars196 is dead since 2023. Get car_ims.tgz and cars_annos.mat"
            " from somebody who has them and run: "
            "dmlray data prepare cars --from car_ims.tgz --from cars_annos.mat"
        )
    else:
        problem = f"data set {dataset!r} has no public address. Allowed: {', '.join(SOURCES)}."
    raise ConfigError("--download", [problem])


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
    file = shlex.quote(str(folder / source.file))
    return DataError(
        f"{source.url}: cannot be fetched ({error}). Put {source.file} from there or elsewhere into"
        f" {folder} and run: dmlray data prepare {source.dataset} --from {file}"
    )
