"""Files that were cut off while they were written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.jobs.torn import format_is_known, why_torn


def zip_bytes() -> bytes:
    """As `torch.save` and `numpy.savez` write: stored entries, the directory last."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def safetensors_bytes() -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(100)


def mindspore_bytes(parameters: int = 3) -> list[bytes]:
    """What `mindspore.save_checkpoint` writes: a field of a protobuf message for each parameter."""

    def field(number: int, data: bytes) -> bytes:
        length, varint = len(data), b""
        while length > 0x7F:
            varint += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + varint + bytes([length]) + data

    tensor = b"\x08\x0a" + field(2, b"Float32") + field(3, bytes(400))
    return [
        field(1, field(1, f"layer{number}.weight".encode()) + field(2, tensor))
        for number in range(parameters)
    ]


@pytest.mark.parametrize("checksum", [b"", b"crc_num" + bytes(10)])
def test_a_cut_mindspore_checkpoint_is_torn(tmp_path: Path, checksum: bytes) -> None:
    """Wherever it was cut, but for between two parameters, where it looks like one with fewer."""
    path = tmp_path / "net-12_391.ckpt"
    fields = mindspore_bytes()
    whole = b"".join(fields) + checksum
    path.write_bytes(whole)
    assert why_torn(path) == ""
    assert format_is_known(path)
    between = {len(b"".join(fields[:count])) for count in range(1, 4)}
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert bool(why_torn(path)) == (length not in between), length


@pytest.mark.parametrize(
    "data",
    [b"\ntext that begins so", b"\n\x05\n\x09name", b"\n\x09\n\x04\x00\x01\x02\x03xxxx",
     b"\n" + b"\xff" * 30, b"\xd8\x5e\x3a\x7f encrypted", b"\x80\x02}q\x00.", bytes(100)],
)  # fmt: skip
def test_what_is_no_mindspore_checkpoint_is_not_judged(tmp_path: Path, data: bytes) -> None:
    """Text, another message, a name that is none, an encrypted one, a file of zeros."""
    path = tmp_path / "x.ckpt"
    path.write_bytes(data)
    assert why_torn(path) == ""
    assert not format_is_known(path)


def test_what_follows_the_parameters_and_is_no_checksum_is_not_judged(tmp_path: Path) -> None:
    """It may be a format of tomorrow."""
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"".join(mindspore_bytes()) + b"\x12\x03abc")
    assert why_torn(path) == ""


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\n", b"PK\x03\x04"]))
def test_any_bytes_have_an_answer(data: bytes, start: bytes, tmp_path_factory: Any) -> None:
    """A reason or none, and no crash."""
    path = tmp_path_factory.getbasetemp() / "any.ckpt"
    path.write_bytes(start + data)
    assert isinstance(why_torn(path), str)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz", ".zip", ".ckpt"])
def test_a_cut_zip_file_is_torn_wherever_it_was_cut(tmp_path: Path, suffix: str) -> None:
    """Whole: nothing to say. Cut at any place: the directory is gone."""
    path = tmp_path / f"ckpt{suffix}"
    whole = zip_bytes()
    path.write_bytes(whole)
    assert why_torn(path) == ""
    assert format_is_known(path)
    for length in (0, 1, 3, 4, 50, 900, len(whole) - 23, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert why_torn(path), length


def test_a_cut_safetensors_file_is_torn_wherever_it_was_cut(tmp_path: Path) -> None:
    """Its header says how long it is."""
    path = tmp_path / "model.safetensors"
    whole = safetensors_bytes()
    path.write_bytes(whole)
    assert why_torn(path) == ""
    for length in (0, 7, 8, 50, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert why_torn(path), length
    path.write_bytes(whole + b"x")
    assert why_torn(path)


@pytest.mark.parametrize(
    "data", [b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M", b"anything"]
)
def test_what_is_no_zip_file_is_not_judged(tmp_path: Path, data: bytes) -> None:
    """PyTorch's form before 1.6 has no directory: nobody can tell."""
    path = tmp_path / "old.pth"
    path.write_bytes(data)
    assert why_torn(path) == ""
    assert not format_is_known(path)


@pytest.mark.parametrize("name", ["train.log", "weights.bin2", "gone.pth"])
def test_other_files_are_not_judged(tmp_path: Path, name: str) -> None:
    """Unknown kinds, and files that are gone meanwhile."""
    if name != "gone.pth":
        (tmp_path / name).write_bytes(b"")
    assert why_torn(tmp_path / name) == ""


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b'{"w": 1}', b'{"w": {"data_offsets": []}}', b'{"w":{"data_offsets":["a","b"]}}',
     b"[" * 5000],
)  # fmt: skip
def test_a_hostile_safetensors_header_is_torn_and_no_crash(tmp_path: Path, header: bytes) -> None:
    """Whatever the bytes are, the answer is a reason."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert why_torn(path)
