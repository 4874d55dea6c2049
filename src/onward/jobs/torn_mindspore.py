"""Whether a MindSpore `.ckpt` was cut off, told by its bytes alone.

It is one protobuf message, written parameter by parameter: `repeated Value value = 1` with
`Value { string tag = 1; oneof value { TensorProto tensor = 2; … } }`, so that each says in front
how long it is. With `crc_check` the letters `crc_num` and ten bytes follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_FIELD_1 = b"\x0a"  # number 1, with a length in front
_LONGEST_LENGTH_BYTES = 10
_CRC = b"crc_num"
_CRC_BYTES = len(_CRC) + 10


def looks_like_mindspore(path: Path) -> bool:
    """Whether it begins with a parameter that begins with a name, as far as the file goes.

    Raises `OSError` if it cannot be read.
    """
    with path.open("rb") as file:
        try:
            value_bytes = _field_length(file)
            tag_bytes = _field_length(file) if value_bytes is not None else None
        except EOFError:
            return True
        if value_bytes is None or tag_bytes is None or not 0 < tag_bytes < value_bytes:
            return False
        tag = file.read(min(tag_bytes, 4096))
    return tag.decode("utf-8", errors="ignore").isprintable()


def why_no_parameters(path: Path, size_bytes: int) -> str:
    """Why it is cut off; '' if its parameters are whole. Nobody can tell if one is missing."""
    position = 0
    with path.open("rb") as file:
        while position < size_bytes:
            file.seek(position)
            try:
                length = _field_length(file)
            except EOFError:
                return "it was cut off where a parameter begins"
            if length is None:
                file.seek(position)
                return _why_no_crc(file.read(_CRC_BYTES))
            position = file.tell() + length
    if position > size_bytes:
        return f"it has {size_bytes:,} bytes, and its last parameter ends at {position:,}"
    return ""


def _why_no_crc(rest: bytes) -> str:
    """What follows the parameters is their checksum, or nothing that anybody knows."""
    if len(rest) < _CRC_BYTES and _CRC.startswith(rest[: len(_CRC)]):
        return "its checksum is cut off"
    return ""


def _field_length(file: BinaryIO) -> int | None:
    """The length of the field 1 that begins here; None if none does. Raises `EOFError`."""
    start = file.read(1)
    if not start:
        raise EOFError
    if start != _FIELD_1:
        return None
    length = 0
    for place in range(_LONGEST_LENGTH_BYTES):
        byte = file.read(1)
        if not byte:
            raise EOFError
        length |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return length
    return None
