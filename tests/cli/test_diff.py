"""`onward diff`: what differs between two checkpoints, and by how much."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from onward.cli.values import difference, to_floats
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats, leaf


def raw(array: npt.ArrayLike, dtype: str = "<f4") -> npt.NDArray[np.uint8]:
    return np.array(array, dtype).reshape(-1).view(np.uint8)


def test_everything_that_differs_is_listed(onward: Onward, as_json: AsJson, output: Output) -> None:
    """Facts, configuration, metrics, plain state, tensors; what is equal is only counted."""
    same = floats(5, 6)
    output.save(
        {"model": {"w": floats(3, 4), "same": same, "old": floats(1), "shape": floats(1, 2)},
         "scheduler": {"type": "StepLR", "state": {"last": 1}}},
        about={"config": {"lr": 0.1, "seed": 1, "opt": {"name": "sgd"}}},
    )  # fmt: skip
    output.save(
        {"model": {"w": floats(3, 9), "same": same, "new": floats(1), "shape": floats(1, 2, 3)},
         "scheduler": {"type": "StepLR", "state": {"last": 2}}},
        step=20, metrics={"loss": 0.25, "accuracy": None},
        about={"config": {"lr": 0.2, "seed": 1, "opt": {"name": "adam"}}},
    )  # fmt: skip

    text = onward("diff", output.url, "v1", "v2").stdout
    found = as_json("diff", output.url, "v1", "v2")

    assert found["facts"] == {"step": {"a": 10, "b": 20}}
    assert found["configuration"] == {
        "lr": {"a": 0.1, "b": 0.2},
        "opt.name": {"a": "sgd", "b": "adam"},
    }
    assert found["metrics"] == {"loss": {"a": 0.5, "b": 0.25}, "accuracy": {"b": None}}
    assert found["values"] == {"scheduler/state/last": {"a": 1, "b": 2}}
    tensors = found["tensors"]
    assert tensors["equal"] == 1
    assert [tensor["path"] for tensor in tensors["only_in_a"]] == ["model/old"]
    assert [tensor["path"] for tensor in tensors["only_in_b"]] == ["model/new"]
    w, shape = tensors["changed"]
    assert w["by"] == {
        "elements": 2, "changed": 1, "max_abs": 5.0, "relative_l2": 1.0, "not_finite": 0
    }  # fmt: skip
    assert (shape["path"], shape["by"]) == ("model/shape", None)
    assert "loss 0.5 → 0.25 (-0.25)" in " ".join(text.split())
    assert "2 differ, 1 are equal, 1 only in A, 1 only in B" in text
    assert "model/shape  F32 [2] → F32 [3]" in text
    assert "50 %  model/w" in text


def test_equal_states_are_said_to_be_equal(onward: Onward, as_json: AsJson, output: Output) -> None:
    state = {"model": {"w": floats(1, 2)}, "n": 1.0}
    output.save(state)
    output.save(state, step=20)
    assert "equal, bit for bit" in onward("diff", output.url, "v1", "latest").stdout
    assert as_json("diff", output.url, "v1", "v2")["equal"] is True


def test_plain_state_differs_by_its_bits(as_json: AsJson, output: Output) -> None:
    """1 and 1.0, and 0.0 and −0.0, are different states; equal not-a-numbers are not."""
    output.save({"a": 1, "b": 0.0, "c": float("nan"), "d": True, "model": {"w": floats(1)}})
    output.save({"a": 1.0, "b": -0.0, "c": float("nan"), "d": 1, "model": {"w": floats(1)}})
    assert sorted(as_json("diff", output.url, "v1", "v2")["values"]) == ["a", "b", "d"]


def test_two_outputs_are_compared(
    onward: Onward, as_json: AsJson, output: Output, tmp_path: Path
) -> None:
    """A and B may name another output: URL@CHECKPOINT."""
    output.chain(2)
    other = Output(tmp_path / "other")
    (theirs,) = other.chain(1)
    found = as_json("diff", output.url, "v1", f"{other.url}@v1")
    assert found["b"] == {
        "output": other.url, "checkpoint": theirs.checkpoint, "version": 1, "step": 10
    }  # fmt: skip
    assert found["equal"] is True
    assert other.url in onward("diff", output.url, "v2", f"{other.url}@latest").stdout


def test_only_differing_tensors_are_read(as_json: AsJson, output: Output) -> None:
    """What is equal by digest may even be damaged: it is not looked at."""
    first, _second = output.chain(2)
    manifest = output.repository.manifest(first)
    frozen = next(t for t in manifest.tensors if t.path == "model/frozen")
    (range_,) = frozen.ranges()
    output.flip(output.file("packs", f"{range_.pack}.safetensors"), range_.offset)
    assert as_json("diff", output.url, "v1", "v2")["tensors"]["equal"] == 1


def test_damage_in_a_differing_tensor_names_it(onward: Onward, output: Output) -> None:
    first, _second = output.chain(2)
    manifest = output.repository.manifest(first)
    (range_,) = next(t for t in manifest.tensors if t.path == "model/w").ranges()
    output.flip(output.file("packs", f"{range_.pack}.safetensors"), range_.offset)
    assert "tensor model/w is damaged" in onward("diff", output.url, "v1", "v2", code=1).stderr


def test_another_dtype_is_compared_by_value(as_json: AsJson, output: Output) -> None:
    values = np.array([1.0, 2.0, -0.5], np.float32)
    output.save({"model": {"w": leaf(values), "z": leaf(values)}})
    as_bf16 = (values.view(np.uint32) >> 16).astype(np.uint16)
    wide = leaf(as_bf16.view(np.float16), "BF16")
    output.save({"model": {"w": wide, "z": leaf(values.astype(np.complex64))}})
    w, z = as_json("diff", output.url, "v1", "v2")["tensors"]["changed"]
    assert w["b"]["dtype"] == "BF16"
    assert (w["by"]["max_abs"], w["by"]["changed"]) == (0.0, None)
    assert z["by"] is None


@pytest.mark.parametrize(
    ("dtype", "data", "expected"),
    [
        ("F32", raw([1.5, -2]), [1.5, -2]),
        ("F64", raw([1.5], "<f8"), [1.5]),
        ("F16", raw([0.5, 65504], "<f2"), [0.5, 65504]),
        ("BF16", raw([0x3FC0, 0xFF80], "<u2"), [1.5, -math.inf]),
        ("F8_E5M2", raw([0x3E, 0x7C, 0x01], "u1"), [1.5, math.inf, 2.0**-16]),
        ("F8_E4M3", raw([0x3C, 0x7E, 0xB8, 0x01, 0x80], "u1"), [1.5, 448, -1, 2.0**-9, -0.0]),
        ("I64", raw([-3], "<i8"), [-3]),
        ("U16", raw([65535], "<u2"), [65535]),
        ("BOOL", raw([0, 1], "u1"), [0, 1]),
        ("C64", raw([1, 2]), [1, 2]),
    ],
)
def test_every_dtype_becomes_numbers(
    dtype: str, data: npt.NDArray[np.uint8], expected: list[float]
) -> None:
    """Little-endian bytes of any dtype as float64; bfloat16 and float8 by their bits."""
    np.testing.assert_array_equal(to_floats(data, dtype), expected)


def test_fp8_has_no_numbers_where_the_format_has_none() -> None:
    assert np.isnan(to_floats(raw([0x7F, 0xFF], "u1"), "F8_E4M3")).all()


def test_not_a_number_is_counted_not_spread() -> None:
    """One broken element does not hide by how much the others differ."""
    found = difference(raw([1, math.nan, 3, math.inf]), raw([2, 1, 3, 4]), ("F32", "F32"))
    assert (found.max_abs, found.not_finite, found.changed) == (1.0, 2, 3)
    assert found.relative_l2 == pytest.approx(1 / math.sqrt(1 + 9))
    equal = difference(raw([math.nan, math.inf]), raw([math.nan, math.inf]), ("F32", "F32"))
    assert (equal.max_abs, equal.not_finite, equal.changed) == (0.0, 0, 0)


def test_from_zero_there_is_no_relative_difference() -> None:
    assert difference(raw([0, 0]), raw([1, 0]), ("F32", "F32")).relative_l2 is None


def test_long_tensors_are_compared_in_steps() -> None:
    a = np.zeros(2_500_000, np.float32)
    b = a.copy()
    b[[5, 1_100_000, 2_499_999]] = (1, -3, 2)
    found = difference(raw(a), raw(b), ("F32", "F32"))
    assert (found.elements, found.changed, found.max_abs) == (2_500_000, 3, 3.0)
