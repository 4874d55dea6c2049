"""Whether a file is provably torn: cut off while it was written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from onward.jobs.torn_mindspore import looks_like_mindspore, why_no_parameters

_ZIP_SUFFIXES = {".pth", ".pt", ".ckpt", ".bin", ".zip", ".npz"}
_ZIP_START = b"PK\x03\x04"
_LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"


def why_torn(path: Path) -> str:
    """Why the file cannot be what its name says; '' if it is whole, or nobody can tell.

    `torch.save` and `numpy.savez` write zip files, whose directory comes last, so that a cut file
    has none. A `.pth` in PyTorch's form before 1.6 is no zip file: nothing can be told of it.
    Safetensors say in front how long they are. A MindSpore `.ckpt` says it for each parameter: a
    file that was cut off between two of them looks whole, one that is encrypted is not judged.
    """
    try:
        size_bytes = path.stat().st_size
        if path.suffix in _ZIP_SUFFIXES:
            if path.suffix == ".ckpt" and size_bytes and looks_like_mindspore(path):
                return why_no_parameters(path, size_bytes)
            return _why_no_zip(path, size_bytes)
        if path.suffix == ".safetensors":
            return _why_no_safetensors(path, size_bytes)
    except OSError:
        return ""  # gone, or not ours to read: not proven
    return ""


def format_is_known(path: Path) -> bool:
    """Whether a whole file of this kind can be told from a cut one."""
    if path.suffix == ".safetensors":
        return True
    if path.suffix not in _ZIP_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_START)) == _ZIP_START
        return is_zip or (path.suffix == ".ckpt" and looks_like_mindspore(path))
    except OSError:
        return False


def _why_no_zip(path: Path, size_bytes: int) -> str:
    if size_bytes == 0:
        return "it is empty"
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
    if start != _ZIP_START[: len(start)]:
        return ""
    try:
        with zipfile.ZipFile(path):
            return ""
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "its zip directory is missing: it was cut off while it was written"


def _why_no_safetensors(path: Path, size_bytes: int) -> str:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size_bytes < 8 or length > min(_LONGEST_HEADER, size_bytes - 8):
            return "its header is cut off"
        text = file.read(length)
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != _METADATA]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "its header cannot be read"
    if size_bytes != expected:
        return f"it has {size_bytes:,} of {expected:,} bytes"
    return ""
