"""Where torch keeps compiled code: never in a folder that another user made."""

import os
import socket
import stat
import tempfile
from pathlib import Path

from dmlray.data.cache.atomic_dir import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def set_compile_cache() -> None:
    """Name the folder, before torch takes `torchinductor_USER` in the shared temporary folder.

    It makes one at the first step of an optimizer, compiled or not, and runs what lies there.
    """
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = str(_own_folder())


def _own_folder() -> Path:
    """A folder of this user and machine: compiled code is for one kind of processor."""
    temporary = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    for folder in (temporary, cache_folder() / f"torchinductor_{socket.gethostname()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError:  # a file, or a link to nowhere
            continue
        only_ours = found.st_uid == os.getuid() and not found.st_mode & 0o022
        if stat.S_ISDIR(found.st_mode) and only_ours:
            return folder
    return Path(tempfile.mkdtemp(prefix="torchinductor_"))
