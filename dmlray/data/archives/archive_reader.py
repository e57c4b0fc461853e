"""Read tar and zip archives; all entries are checked before any is written."""

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
SMALL = 10**8  # bytes; an archive that unpacks to less is harmless at any ratio
MAX_READ = 2**24  # bytes; a tar header can claim any length and is read at once

# Raised by the readers for a damaged archive, besides an OSError without errno.
DAMAGE = (
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # zipfile: compression not supported by this Python
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_FOREIGN = {  # first bytes of files often mistaken for a tar or zip
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (git lfs pull)",
    b"<": "a web page",
}
_COMPRESSIONS: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class ArchiveEntry(NamedTuple):
    """One entry of an archive: `size` in bytes; `oddity` is why it is not a plain file."""

    name: str
    size: int
    is_folder: bool
    oddity: str | None
    open: Callable[[], IO[bytes] | None]


class _Stream(BufferedReader):
    """An uncompressed tar; reads of more than `MAX_READ` bytes are refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


@contextmanager
def opened(archive: Path) -> Iterator[Iterable[ArchiveEntry]]:
    """Open a tar (plain, gz, bz2, xz) or zip, detected by content, not by name.

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
    """Yield (path below the root, member) of the files; raise for unsafe or oversized archives."""
    limit = min(MAX_BYTES, max(SMALL, MAX_RATIO * archive.stat().st_size))
    size = 0  # bytes
    for count, member in enumerate(members, start=1):
        size += member.size
        if size > limit:
            raise DataError(f"{archive}: unpacks to more than {limit / 1e9:.1f} GB: not unpacked.")
        if count > MAX_MEMBERS:
            raise DataError(f"{archive}: has more than {MAX_MEMBERS} members: not unpacked.")
        if member.oddity:
            raise DataError(f"{archive}: {member.name!r} is {member.oddity}: not unpacked.")
        path = PurePosixPath(member.name)
        if not _is_inside(member.name) or not (path.parts or member.is_folder):
            raise DataError(
                f"{archive}: {member.name!r} is not a path inside the archive: not unpacked."
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
            f"{archive}: is {_kind(head)}. Expected a tar (plain, gz, bz2 or xz) or a zip; unpack"
            " other archives yourself."
        ) from error
    return _plain


def _kind(head: bytes) -> str:
    """Describe a file that is neither tar nor zip by its first bytes."""
    if not head:
        return "empty"
    known = (kind for magic, kind in _FOREIGN.items() if head.lstrip().startswith(magic))
    return next(known, f"neither tar nor zip: it begins with {head[:16]!r}")


def _plain(archive: Path) -> BufferedReader:
    return archive.open("rb")


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArchiveEntry:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 for archives not made on Unix
    oddity = None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a device"
    if info.flag_bits & 1:
        oddity = "encrypted"
    name = info.filename.replace("\\", "/")  # some Windows programs violate the format
    return ArchiveEntry(
        name, info.file_size, name.endswith("/"), oddity, partial(zipped.open, info)
    )


def _of_tar(tar: tarfile.TarFile, stream: _Stream) -> Iterator[ArchiveEntry]:
    for info in tar:
        is_plain = info.isdir() or (info.isreg() and not info.issparse())
        oddity = None if is_plain else "a link or a device"
        content = partial(tar.extractfile, info)
        yield ArchiveEntry(info.name, info.size, info.isdir(), oddity, content)
    # tarfile treats a damaged header, or the end of the file, as the end of the archive.
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    stream.read(MAX_READ)  # a compressed file's checksum follows the padding
