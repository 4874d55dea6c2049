"""MindSpore's files without MindSpore: read with suspicion, taken apart, put together again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.errors import StateError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_ckpt import DTYPES, read_ckpt
from onward.frameworks.mindspore_entries import entries_of, parts_of

# What MindSpore 2.10 wrote for four tensors and a text, with crc_check=True.
REAL = (
    b"\n\x1e\n\x01w\x12\x19\x08\x03\x12\x07Float32\x1a\x0c\x00\x00\x00\x00\x00\x00\x80?\x00\x00"
    b"\x00@\n\x10\n\x01b\x12\x0b\x08\x01\x12\x04Bool\x1a\x01\x01\n\x16\n\x01s\x12\x11\x12\x05Int64"
    b"\x1a\x08\x02\x00\x00\x00\x00\x00\x00\x00\n\x18\n\x02bf\x12\x12\x08\x02\x12\x08BFloat16\x1a"
    b"\x04\x80?\x80?\n\x1a\n\x01x\x12\x15\x08\x00\x12\x03str\x1a\x0ch\x00\x00\x00e\x00\x00\x00y\x00"
    b"\x00\x00crc_num\x00\x00\x00\x00\x00\x00Z\xe7\x1c\xbe"
)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(
    name: str, dims: Sequence[int], dtype: str, content: bytes, *, packed: bool = False
) -> bytes:
    lengths = [varint(dim) for dim in dims]
    shape = message(1, b"".join(lengths)) if packed else b"".join(b"\x08" + x for x in lengths)
    tensor = shape + message(2, dtype.encode()) + message(3, content)
    return message(1, message(1, name.encode()) + message(2, tensor))


def read(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "f.ckpt").write_bytes(content)
    return read_ckpt(tmp_path / "f.ckpt")


def test_a_real_file_is_read(tmp_path: Path) -> None:
    """Dtypes, scalars, bfloat16, a text that is left out, and the checksum at the end."""
    found = read(tmp_path, REAL)
    described = {name: (x.dtype, x.shape, x.kind) for name, x in found.tensors.items()}
    assert described == {
        "w": ("F32", (3,), "mindspore"), "b": ("BOOL", (1,), "mindspore"),
        "s": ("I64", (), "mindspore"), "bf": ("BF16", (2,), "mindspore"),
    }  # fmt: skip
    np.testing.assert_array_equal(found.tensors["w"].data.view("<f4"), [0, 1, 2])
    assert found.left_out == ["x"]


def test_a_tensor_in_several_parts_is_one(tmp_path: Path) -> None:
    """MindSpore cuts what is larger than 512 MiB; each part repeats dims and dtype."""
    parts = [entry("w", [2, 2], "Float32", bytes([k]) * 8) for k in (1, 2)]
    found = read(tmp_path, b"".join(parts) + entry("v", [1], "Int8", b"\5", packed=True))
    assert bytes(found.tensors["w"].data) == b"\1" * 8 + b"\2" * 8
    assert found.tensors["v"].shape == (1,)


W = entry("w", [2], "Float32", b"\0" * 8)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "noise": (b"\x80\x02" * 500, "no file of save_checkpoint"),
    "a zip": (b"PK\x03\x04" + b"\0" * 60, "no file of save_checkpoint"),
    "cut short": (REAL[:-30], "no file of save_checkpoint"),
    "a flipped bit": (REAL.replace(b"\x80?", b"\x81?", 1), "damaged"),
    "more elements than bytes": (entry("w", [1 << 20], "Float32", b"\0" * 8), "claims"),
    "fewer elements than bytes": (entry("w", [1], "Float32", b"\0" * 8), "claims"),
    "a negative dimension": (entry("w", [(1 << 64) - 1], "Float32", b"\0" * 8), "claims"),
    "a huge product": (entry("w", [1 << 40, 1 << 40, 0], "Float32", b""), ""),
    "too many dimensions": (entry("w", [1] * 100, "Float32", b"\0" * 4), "too many dimensions"),
    "an unknown dtype": (entry("w", [1], "Float99", b"\0" * 8), "Float99"),
    "a name twice": (W + entry("v", [1], "Int8", b"\0") + W, "twice"),
    "parts that differ": (W + entry("w", [1], "Int8", b"\0"), "do not belong together"),
    "no name": (message(1, message(2, b"")), "no name"),
    "a name that is no text": (message(1, message(1, b"\xff\xfe")), "no file of save_checkpoint"),
    "an endless name": (message(1, message(1, b"a" * 10_000)), "too long"),
    "a length beyond the end": (b"\n\xff\xff\xff\xff\x7f", "no file of save_checkpoint"),
    "an endless number": (b"\xff" * 100, "no file of save_checkpoint"),
    "only a text": (entry("t", [0], "str", b"h\0\0\0"), "no tensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    """One typed error with the reason, never a crash, never memory that the file does not have."""
    content, reason = HOSTILE[name]
    if not reason:
        assert read(tmp_path, content).tensors["w"].size_bytes == 0
        return
    with pytest.raises(StateError, match="cannot be imported") as caught:
        read(tmp_path, content)
    assert reason in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, len(REAL)))
def test_any_bytes_are_read_or_refused(tmp_path_factory: Any, noise: bytes, place: int) -> None:
    """Whatever stands in a file: tensors whose bytes it has, or `StateError`."""
    for content in (noise, REAL[:place] + noise, REAL[:place] + noise + REAL[place:-17]):
        try:
            found = read(tmp_path_factory.mktemp("f"), content)
        except StateError:
            continue
        for leaf in found.tensors.values():
            assert leaf.data.size == leaf.size_bytes <= len(content)


def test_the_checksum_covers_every_byte(tmp_path: Path) -> None:
    crc = b"crc_num" + zlib.crc32(W).to_bytes(10, "big")
    assert list(read(tmp_path, W + crc).tensors) == ["w"]


def test_every_dtype_has_its_size(tmp_path: Path) -> None:
    """The table of dtypes names what Onward stores; the size of one element tells."""
    for name, dtype in DTYPES.items():
        size = TensorLeaf(dtype, (1,), "mindspore").size_bytes
        assert read(tmp_path, entry("w", [1], name, b"\0" * size)).tensors["w"].dtype == dtype


def floats(*values: float, dtype: str = "F32") -> TensorLeaf:
    array = np.array(values, {"F32": "<f4", "I32": "<i4"}[dtype])
    return TensorLeaf(dtype, array.shape, "mindspore", array.view(np.uint8))


def scalar(value: float) -> TensorLeaf:
    return TensorLeaf("F32", (), "mindspore", np.array([value], "<f4").view(np.uint8))


def test_network_and_optimizer_are_told_apart_and_put_together() -> None:
    """What `Model.train` saves: names before the dot are slots, numbers alone are shared."""
    entries = {
        "conv.weight": floats(1, 2), "bn.moving_mean": floats(3), "moments": floats(9),
        "global_step": floats(5, dtype="I32"), "learning_rate": scalar(0.5),
        "momentum": scalar(0.75), "moments.conv.weight": floats(4, 5),
        "epoch_num": TensorLeaf("I64", (), "mindspore", np.array([3]).view(np.uint8)),
        "loss": scalar(1.5),
    }  # fmt: skip
    parts = parts_of(entries, model="net")
    assert list(parts.net) == ["conv.weight", "bn.moving_mean", "moments"]
    assert (parts.epoch, parts.step, parts.left_out) == (3, 5, ["loss"])
    tree = parts.optimizer
    assert tree is not None
    assert tree["type"] == "Momentum"
    assert tree["state"].keys() == {"net.conv.weight"}
    assert tree["state"]["net.conv.weight"].keys() == {"moments"}
    assert tree["shared"].keys() == {"global_step", "momentum"}
    assert tree["param_groups"] == [{"lr": 0.5, "params": ["net.conv.weight"]}]
    back, left_out = entries_of(parts.net, tree, model="net")
    assert left_out == []
    assert list(back) == list(entries)[:-2]
    assert all(bytes(back[n].data) == bytes(entries[n].data) for n in back)  # type: ignore[arg-type]


def test_a_network_alone_has_no_optimizer() -> None:
    """A parameter may be called as an optimizer's slot is, or as its rate."""
    entries = {"moments.weight": floats(1), "learning_rate": floats(2)}
    parts = parts_of(entries, model="net")
    assert (list(parts.net), parts.optimizer) == (list(entries), None)


def test_groups_that_cannot_be_told_are_refused() -> None:
    """A file names each group's rate, and not its members; the weights alone are offered."""
    entries = {
        "w": floats(1), "global_step": floats(1, dtype="I32"), "moments.w": floats(1),
        "learning_rate_group_0": scalar(0.1),
    }  # fmt: skip
    with pytest.raises(StateError, match="--only weights"):
        parts_of(entries, model="net")
    parts = parts_of(entries, model="net", weights_only=True)
    assert (parts.optimizer, parts.left_out) == (None, ["the optimizer"])


def test_a_table_of_rates_gives_the_present_one() -> None:
    """Dynamic learning rates are configuration; where they stand is global_step. None goes out: a
    number in a table's place would keep MindSpore from loading the file."""
    entries = {
        "w": floats(1), "global_step": floats(2, dtype="I32"), "moments.w": floats(1),
        "learning_rate": floats(3, 2, 1, 0),
    }  # fmt: skip
    tree = parts_of(entries, model="net").optimizer
    assert tree is not None
    assert tree["param_groups"][0]["lr"] == 1
    back, left_out = entries_of({"w": floats(1)}, tree, model="net")
    assert (list(back), left_out) == (["w", "global_step", "moments.w"], [])
