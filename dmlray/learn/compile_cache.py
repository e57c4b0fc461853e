"""Folder of torch's compiled code, never one that another user created."""

import os
import socket
import stat
import tempfile
from pathlib import Path

from dmlray.data.cache.atomic_dir import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def set_compile_cache() -> None:
    """Set the folder, before torch uses `torchinductor_USER` in the shared temporary folder.

    torch creates it at an optimizer's first step, compiled or not, and runs the code in it.
    """
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = str(_own_folder())


def _own_folder() -> Path:
    """Return a folder of this user and host: compiled code is specific to a processor."""
    temporary = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    for folder in (temporary, cache_folder() / f"torchinductor_{socket.gethostname()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError:  # a file, or a dangling link
            continue
        private = status.st_uid == os.getuid() and not status.st_mode & 0o022
        if stat.S_ISDIR(status.st_mode) and private:
            return folder
    return Path(tempfile.mkdtemp(prefix="torchinductor_"))
