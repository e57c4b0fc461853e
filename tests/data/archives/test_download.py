"""Each failure names the command for a file from elsewhere."""

import hashlib
from pathlib import Path

import pytest

from dmlray import download as downloader
from dmlray.data.archives.download import Source, fetch
from dmlray.download import DownloadError, Progress, Remote
from dmlray.errors import DataError

CONTENT = b"feathers" * 1000
SOURCE = Source(
    "cub", "birds.tgz", "http://nowhere.invalid/birds.tgz", len(CONTENT),
    f"md5:{hashlib.md5(CONTENT).hexdigest()}",
)  # fmt: skip


def test_a_failure_names_the_reason_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(remote: Remote, target: Path, progress: Progress) -> None:
        assert remote == Remote(SOURCE.url, SOURCE.checksum, len(CONTENT))
        raise DownloadError("HTTP status 404")

    monkeypatch.setattr(downloader, "fetch", failing)
    folder = tmp_path / "my data"
    with pytest.raises(DataError) as caught:
        fetch(SOURCE, folder)
    assert str(caught.value) == (
        f"{SOURCE.url}: cannot be fetched (HTTP status 404). Put birds.tgz from there or "
        f"elsewhere into {folder}. Resume with: dmlray.prepare_data(name='cub', "
        f"sources='{folder}/birds.tgz')"
    )


def test_a_file_of_the_users_own_is_checked_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "birds.tgz").write_bytes(CONTENT)
    assert fetch(SOURCE, tmp_path).read_bytes() == CONTENT
    (tmp_path / "birds.tgz").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"birds\.tgz: is not the official file .*Delete it"):
        fetch(SOURCE, tmp_path)
    assert (tmp_path / "birds.tgz").read_bytes() == CONTENT[:-1]
