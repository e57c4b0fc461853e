"""What a tar or zip holds: listed and checked whole before anything of it is written."""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase, BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from dmlray.errors import DataError

MAX_MEMBERS = 2_000_000
MAX_BYTES = 200 * 10**9
MAX_RATIO = 100  # unpacked bytes per byte of the archive; photographs have about 1
SMALL = 10**8  # bytes; whatever its ratio, an archive that unpacks to less does no harm
MAX_READ = 2**24  # bytes; a header of a tar may claim any length and is read at once

# What the readers raise for a damaged archive, beside an OSError without a number.
DAMAGE = (
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # zipfile: a compression that this Python does not have
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_FOREIGN = {  # how files that are often given in place of a tar or zip begin
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself (git lfs pull)",
    b"<": "a web page, saved in its place",
}
_COMPRESSIONS: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class ArchiveEntry(NamedTuple):
    """One entry of an archive: `size` in bytes; `oddity` says why it is no plain file."""

    name: str
    size: int
    is_folder: bool
    oddity: str | None
    open: Callable[[], IO[bytes] | None]


class _Stream(BufferedReader):
    """A tar, uncompressed, that gives at most `MAX_READ` bytes at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


@contextmanager
def opened(archive: Path) -> Iterator[Iterable[ArchiveEntry]]:
    """Open a tar (plain, gz, bz2, xz) or zip, told apart by content and not by name.

    Raises:
        DataError: If it is neither.
    """
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(_ZIP):
        with zipfile.ZipFile(archive) as zipped:
            yield map(partial(_of_zip, zipped), zipped.infolist())
    else:
        with (
            _Stream(_opener(archive, head)(archive)) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            yield _of_tar(tar, stream)


def checked(archive: Path, members: Iterable[ArchiveEntry]) -> Iterator[tuple[str, ArchiveEntry]]:
    """Give (path below the root, member) of the files; refuse what no honest archive holds."""
    limit = min(MAX_BYTES, max(SMALL, MAX_RATIO * archive.stat().st_size))
    size = 0  # bytes
    for count, member in enumerate(members, start=1):
        size += member.size
        if size > limit:
            raise DataError(f"{archive}: unpacks to more than {limit / 1e9:.1f} GB: not done.")
        if count > MAX_MEMBERS:
            raise DataError(f"{archive}: has more than {MAX_MEMBERS} members: not unpacked.")
        if member.oddity:
            raise DataError(f"{archive}: {member.name!r} is {member.oddity}: not unpacked.")
        path = PurePosixPath(member.name)
        if not _is_inside(member.name) or not (path.parts or member.is_folder):
            raise DataError(
                f"{archive}: {member.name!r} is no path inside the archive: not unpacked."
            )
        if not member.is_folder:
            yield path.as_posix(), member


def _is_inside(name: str) -> bool:
    path = PureWindowsPath(name)  # splits at both kinds of slash and knows drive letters
    return not (path.drive or path.root or ".." in path.parts or "\0" in name)


def _opener(archive: Path, head: bytes) -> Callable[[Path], BufferedIOBase]:
    for magic, opener in _COMPRESSIONS.items():
        if head.startswith(magic):
            return opener
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise DataError(
            f"{archive}: is {_kind(head)}. Expected a tar (plain, gz, bz2 or xz) or a zip; other"
            " archives can be unpacked by their own program."
        ) from error
    return _plain


def _kind(head: bytes) -> str:
    """What a file that is no archive of ours begins like, in words."""
    if not head:
        return "empty"
    known = (kind for magic, kind in _FOREIGN.items() if head.lstrip().startswith(magic))
    return next(known, f"neither tar nor zip: it begins with {head[:16]!r}")


def _plain(archive: Path) -> BufferedReader:
    return archive.open("rb")


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArchiveEntry:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made without Unix
    oddity = None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a device"
    if info.flag_bits & 1:
        oddity = "encrypted"
    name = info.filename.replace("\\", "/")  # some Windows programs write these, against the format
    return ArchiveEntry(
        name, info.file_size, name.endswith("/"), oddity, partial(zipped.open, info)
    )


def _of_tar(tar: tarfile.TarFile, stream: _Stream) -> Iterator[ArchiveEntry]:
    for info in tar:
        is_plain = info.isdir() or (info.isreg() and not info.issparse())
        oddity = None if is_plain else "a link or a device"
        content = partial(tar.extractfile, info)
        yield ArchiveEntry(info.name, info.size, info.isdir(), oddity, content)
    # tarfile takes a damaged header, or the end of the file, for the end of the archive.
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    stream.read(MAX_READ)  # what closes a compressed file, its checksum, lies behind the padding
