"""Read tensor files (.safetensors, .pt, .pth) to the CPU, checked, without running code."""

import pickle
import warnings
from argparse import Namespace
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from dmlray.file_reading import read_bytes

_TORCH_ZIP = b"PK\x03\x04"  # how `torch.load` recognises its own format
_FOREIGN = {  # first bytes of files that are found in place of weights
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: run `git lfs pull`",
    b"<": "is a web page, saved in place of the file",
    b"{": "is JSON, not a file of tensors",
}


def hash_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Feed `digest`, of hashlib, with names, shapes and values, in the order of the names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def read_tensors(path: Path) -> Any:
    """Read a file that `torch.save` wrote, or the state dict of a `.safetensors` file.

    The caller checks the structure of the content; see `unusable`.

    Raises:
        OSError: If there is no such file, it cannot be read, or it is not a regular file.
        ValueError: If it is damaged or holds more than plain data; the text is the reason.
    """
    return parse_tensors(path, read_bytes(path))


def parse_tensors(path: Path, packed: bytes) -> Any:
    """Parse the content `packed` of the file `path`, see `read_tensors`.

    Raises:
        ValueError: If it is damaged or holds more than plain data; the text is the reason.
    """
    if not packed:
        raise ValueError("is empty")
    for magic, kind in _FOREIGN.items():
        if packed[:64].lstrip().startswith(magic):
            raise ValueError(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice for authors of torch programs
        if _is_safetensors(path, packed):
            return _from_safetensors(packed)
        return _from_torch(packed)


def unusable(value: object) -> str | None:
    """Return why `value` is not a dense tensor on the CPU, as a state dict needs; None if it is."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"is not a tensor ({type(value).__name__})"
    assert isinstance(value, Tensor)
    if value.is_nested or value.layout != torch.strided:
        return "is not dense"
    if value.is_quantized:
        return "is quantized"
    if value.device.type != "cpu":
        return f"has no data (device {value.device.type})"
    return None


def _is_safetensors(path: Path, packed: bytes) -> bool:
    """Detect safetensors by content, as suffixes vary: the header's size, then its JSON."""
    if packed[8:9] == b"{" and int.from_bytes(packed[:8], "little") <= len(packed) - 8:
        return True
    return path.suffix == ".safetensors" and not packed.startswith(_TORCH_ZIP)


def _from_safetensors(packed: bytes) -> Any:
    from safetensors.torch import load

    try:
        return load(packed)
    except Exception as error:  # safetensors and torch raise many kinds for a damaged file
        raise ValueError(
            f"is not a safetensors file or is damaged ({_first_line(error)})"
        ) from None


def _from_torch(packed: bytes) -> Any:
    if packed.startswith(_TORCH_ZIP):
        _check_zip(packed)
    try:
        with torch.serialization.safe_globals([Namespace]):  # arguments that training scripts save
            return torch.load(BytesIO(packed), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its text advises unsafe loading
        reason = (
            "is not a file of tensors, or holds objects other than tensors, numbers and text: save"
            " the state_dict() of a PyTorch model"
        )
    except MemoryError:
        reason = "needs more memory than there is"
    except Exception:  # torch raises many kinds for a damaged file
        reason = "is not a file of tensors or is damaged"
    raise ValueError(reason)


def _check_zip(packed: bytes) -> None:
    """Check what torch does not: checksums, and that no entry is compressed."""
    try:
        with ZipFile(BytesIO(packed)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            stored = all(entry.compress_type == ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > len(packed):
                raise ValueError("is not packed as torch.save packs tensors")
            if len(names) < len(entries):
                raise ValueError("is damaged: it has an entry twice")
            torn = archive.testzip()
    except (BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError):
        raise ValueError("is cut short, or its zip archive is damaged") from None
    if torn:
        raise ValueError(f"is damaged: {torn} does not have its checksum")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
