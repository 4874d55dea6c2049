"""`onward export`: one ordinary file that others read, whole or not there."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from onward.cli.safetensors_file import read_safetensors
from onward.errors import StateError
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats, leaf

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def optimizer(*names: str) -> dict[str, Any]:
    return {
        "type": "SGD",
        "state": {name: {"momentum_buffer": floats(1, 2)} for name in names},
        "shared": {},
        "param_groups": [{"lr": 0.1, "params": list(names)}],
    }


def test_weights_go_by_the_names_that_the_model_gives(onward: Onward, output: Output) -> None:
    """One model: bare names, so that its own load_state_dict takes them; metadata say whence."""
    (commit,) = [output.save({
        "model": {"fc.weight": leaf(WEIGHT), "count": leaf(np.array(7, np.int64))},
        "optimizer": optimizer("model.fc.weight"), "ema": {"fc.weight": leaf(WEIGHT * 2)},
        "generator": {"device": "cpu", "state": floats(1)},
        "randomness": {"torch": floats(1, 2, 3)},
    }, step=70, epoch=4)]  # fmt: skip
    file = output.folder.parent / "model.safetensors"

    said = onward("export", output.url, file).stdout

    tensors = load_file(file)
    assert sorted(tensors) == ["count", "fc.weight"]
    np.testing.assert_array_equal(tensors["fc.weight"], WEIGHT)
    assert tensors["count"] == 7
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    assert metadata["checkpoint"] == commit.checkpoint
    assert (metadata["step"], metadata["epoch"], metadata["format"]) == ("70", "4", "pt")
    assert f"2 tensors, {file.stat().st_size} B" in said
    assert [path.name for path in file.parent.iterdir() if "tmp" in path.name] == []


def test_another_model_may_be_named(onward: Onward, output: Output, tmp_path: Path) -> None:
    output.save(
        {"model": {"w": floats(1)}, "optimizer": optimizer("model.w"), "ema": {"w": floats(2)}}
    )
    onward("export", output.url, tmp_path / "ema.safetensors", "--model", "ema")
    assert load_file(tmp_path / "ema.safetensors")["w"] == 2
    result = onward("export", output.url, tmp_path / "x", "--model", "nope", code=2)
    assert "use one of model, ema" in result.stderr


def test_several_models_keep_their_names_apart(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    output.save({"generator": {"w": floats(1)}, "critic": {"w": floats(2)}})
    onward("export", output.url, tmp_path / "both")
    assert sorted(load_file(tmp_path / "both")) == ["critic.w", "generator.w"]
    result = onward("export", output.url, tmp_path / "x.pth", code=2)
    assert "2 models: generator, critic" in result.stderr


def test_all_tensors_may_be_asked_for(as_json: AsJson, output: Output, tmp_path: Path) -> None:
    output.save({"model": {"w": floats(1)}, "optimizer": optimizer("model.w")})
    as_json("export", output.url, "latest", tmp_path / "all", "--only", "all")
    assert sorted(load_file(tmp_path / "all")) == [
        "optimizer/state/model.w/momentum_buffer", "w",
    ]  # fmt: skip


def test_every_dtype_arrives(onward: Onward, output: Output, tmp_path: Path) -> None:
    """bfloat16, float8, bool, scalars, empty and tied tensors; only complex128 has no place."""
    bits = np.array([1, 2, 3, 4], np.uint8)
    tied = leaf(WEIGHT)
    output.save({"model": {
        "bf16": leaf(bits.view(np.float16), "BF16"), "f8": leaf(bits, "F8_E4M3"),
        "bool": leaf(np.array([True, False])), "scalar": leaf(np.array(2.5)),
        "empty": leaf(np.zeros((0, 3), np.float32)), "a": tied, "b": tied,
        "complex": leaf(np.array([1 + 2j], np.complex64)),
    }})  # fmt: skip
    onward("export", output.url, tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", "pt") as opened:
        dtypes = {name: str(opened.get_tensor(name).dtype) for name in opened.keys()}  # noqa: SIM118
    assert dtypes["bf16"] == "torch.bfloat16"
    assert dtypes["f8"] == "torch.float8_e4m3fn"
    assert dtypes["complex"] == "torch.complex64"
    assert len(dtypes) == 8

    output.save({"model": {"c": leaf(np.array([1j], np.complex128))}})
    assert "C128" in onward("export", output.url, tmp_path / "c", code=1).stderr


def test_what_is_no_tensor_is_said_to_be_left_out(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    output.save({"model": {"w": floats(1), "_extra_state": {"version": 3}}})
    text = onward("export", output.url, tmp_path / "f").stdout
    assert "left out: model/_extra_state/version" in text


def test_an_existing_file_is_not_replaced_unasked(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    output.chain(2)
    file = tmp_path / "f.safetensors"
    onward("export", output.url, "v1", file)
    before = file.read_bytes()
    assert "exists already" in onward("export", output.url, "v2", file, code=2).stderr
    assert file.read_bytes() == before
    onward("export", output.url, "v2", file, "--force")
    assert load_file(file)["w"][0] == 2


def of_mindspore(output: Output) -> None:
    net = {
        "conv.weight": leaf(np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)),
        "bn.gamma": floats(1, 2), "bn.moving_mean": floats(3, 4),
        "words.embedding_table": leaf(WEIGHT),
    }  # fmt: skip
    output.save(
        {"model": net, "optimizer": optimizer("model.bn.gamma")}, framework="mindspore", epoch=3
    )


def test_a_pth_of_mindspores_checkpoint_has_pytorchs_names(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    """By rule as far as shapes tell; the rest is kept and listed, and --layer tells it."""
    of_mindspore(output)
    said = onward("export", output.url, tmp_path / "a.pth").stdout
    assert "translated from mindspore: 1 by name, 3 by rule (embedding 1, normalisation 2)" in said
    assert "conv may be a convolution 1d, or one 2d of a single row (see --layer)" in said
    assert "left out: optimizer" in said
    net = torch.load(tmp_path / "a.pth", weights_only=True)["net"]
    assert list(net) == ["conv.weight", "bn.weight", "bn.running_mean", "words.weight"]
    assert net["conv.weight"].shape == (1, 2, 1, 3)
    onward("export", output.url, tmp_path / "b.pth", "--layer", "conv=conv1d")
    told = torch.load(tmp_path / "b.pth", weights_only=True)
    assert told["net"]["conv.weight"].tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert told["epoch"] == 3
    onward("export", output.url, tmp_path / "c.pth", "--keep-names")
    kept = torch.load(tmp_path / "c.pth", weights_only=True)["net"]
    assert list(kept) == ["conv.weight", "bn.gamma", "bn.moving_mean", "words.embedding_table"]
    both = ("--keep-names", "--layer", "conv=conv1d")
    onward("export", output.url, tmp_path / "d.pth", *both, code=2)


@pytest.mark.parametrize(
    ("layer", "file", "said"),
    [
        ("conv", "a.pth", "--layer conv"),
        ("nope=dense", "a.pth", "no layer 'nope'"),
        ("conv=cube", "a.pth", "cannot be 'cube'"),
        ("conv=conv1d", "a.safetensors", "for .pth and .ckpt files"),
    ],
)
def test_a_layer_that_helps_nothing_is_refused(
    onward: Onward, output: Output, tmp_path: Path, layer: str, file: str, said: str
) -> None:
    of_mindspore(output)
    assert said in onward("export", output.url, tmp_path / file, "--layer", layer, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_safetensors_say_whose_names_they_hold(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    """MindSpore's own loader looks for "ms"; an import takes them for MindSpore's again."""
    of_mindspore(output)
    onward("export", output.url, tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", "np") as opened:
        assert opened.metadata()["format"] == "ms"
        assert "bn.gamma" in opened.keys()  # noqa: SIM118
    onward("import", tmp_path / "f.safetensors", tmp_path / "again")
    assert "mindspore" in onward("show", tmp_path / "again").stdout


@pytest.mark.skipif(find_spec("mindspore") is not None, reason="MindSpore is installed here")
def test_a_ckpt_without_mindspore_says_how_to_install_it(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    output.chain(1)
    said = onward("export", output.url, tmp_path / "f.ckpt", code=2).stderr
    assert "pip install 'onward[mindspore]'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_impossible_places_are_refused(onward: Onward, output: Output, tmp_path: Path) -> None:
    output.chain(1)
    assert "no folder" in onward("export", output.url, tmp_path / "no" / "f", code=2).stderr
    assert "no ordinary file" in onward("export", output.url, tmp_path, code=2).stderr
    assert "no ordinary file" in onward("export", output.url, "/dev/null", code=2).stderr
    assert "names no file" in onward("export", output.url, f"{tmp_path}/f/", code=2).stderr
    onward("export", output.url, "v1", "f", "too-many", code=2)
    assert not (tmp_path / "no").exists()


def test_damage_leaves_no_file(onward: Onward, output: Output, tmp_path: Path) -> None:
    """A file with wrong bytes in it never appears, nor does half of one."""
    (commit,) = output.chain(1)
    (range_,) = output.repository.manifest(commit).tensors[0].ranges()
    output.flip(output.file("packs", f"{range_.pack}.safetensors"), range_.offset)
    for file in ("f.safetensors", "f.pth"):
        result = onward("export", output.url, tmp_path / file, code=1)
        assert "tensor model/w is damaged" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_nothing_to_export_says_so(onward: Onward, output: Output, tmp_path: Path) -> None:
    output.save({"counter": 3})
    for file in ("f.safetensors", "f.pth"):
        assert "holds no model" in onward("export", output.url, tmp_path / file, code=2).stderr
    onward("export", output.url, tmp_path / "all", "--only", "all")
    assert load_file(tmp_path / "all") == {}


def safetensors_bytes(header: object, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(
    dtype: str = "F32", shape: tuple[int, ...] = (2,), start: int = 0, end: int = 8
) -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_an_honest_safetensors_file_is_read(tmp_path: Path) -> None:
    header = {"w": entry(), "__metadata__": {"step": "3"}}
    (tmp_path / "f").write_bytes(safetensors_bytes(header))
    leaves, metadata = read_safetensors(tmp_path / "f")
    assert (leaves["w"].shape, metadata) == ((2,), {"step": "3"})


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        safetensors_bytes({"w": entry()}, length=1 << 62),
        safetensors_bytes(b"{" * 50_000),
        safetensors_bytes([1]),
        safetensors_bytes({"w": 3}),
        safetensors_bytes({"__metadata__": 3}),
        safetensors_bytes({"w": entry(dtype="F33")}),
        safetensors_bytes({"w": entry(shape=(1 << 60, 1 << 60))}),
        safetensors_bytes({"w": entry(shape=(3,))}),
        safetensors_bytes({"w": entry(start=4, end=12)}),
        safetensors_bytes({"w": entry(end=4, shape=(1,))}),
        safetensors_bytes({"w": entry()}, b"\0" * 4),
        safetensors_bytes({"w": entry()}, b"\0" * 12),
        safetensors_bytes({"v": entry(), "w": entry()}),
    ],
)
def test_a_safetensors_file_that_lies_is_refused(tmp_path: Path, hostile: bytes) -> None:
    """Lengths, places, dtypes and shapes are checked against each other and against the file."""
    (tmp_path / "f").write_bytes(hostile)
    with pytest.raises(StateError, match="cannot be imported"):
        read_safetensors(tmp_path / "f")
