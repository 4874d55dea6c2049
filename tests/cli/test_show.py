"""`onward show`: what made a checkpoint and what it holds, own or inherited."""

from __future__ import annotations

import enum

import numpy as np

from onward.errors import Damaged
from onward.frameworks.base import Tagged
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats, leaf


class Colour(enum.Enum):
    RED = 1


def test_what_made_it_and_what_it_holds(onward: Onward, output: Output) -> None:
    """Facts, metrics, configuration, command, objects, packs and tensors of the latest."""
    first, second = output.chain(2)
    output.repository.set_alias("champion", second.checkpoint)

    text = onward("show", output.url).stdout

    assert text.startswith(f"checkpoint v2 {second.checkpoint}  (latest, champion)")
    assert f"v1 {first.checkpoint}" in text
    assert "every 10 steps" in text
    assert "train.py --lr 0.1" in text
    assert "configuration\n  lr  0.1" in text
    assert "loss  0.5" in text
    assert "F32  [3]  12 B  own" in text
    assert "F32  [8]  32 B  inherited" in text
    assert "holds 44 B in 2 tensors" in text


def test_a_long_curve_is_told_by_its_length(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """Hundreds of points are no text to read; `--json` has them."""
    points = [[step, {"loss": 1.0 / step}] for step in range(1, 201)]
    output.save(about={"learning": {"steps": 200, "curve": points}})
    lines = onward("show", output.url).stdout.splitlines()
    assert [line.split()[1:] for line in lines if "learning.curve" in line] == [["200", "points"]]
    assert as_json("show", output.url)["about"]["learning"]["curve"] == points


def test_json_says_where_every_tensor_is(as_json: AsJson, output: Output) -> None:
    first, second = output.chain(2)

    found = as_json("show", output.url, "v2")

    assert (found["checkpoint"], found["parent"]) == (second.checkpoint, first.checkpoint)
    assert found["size_bytes"] == 44
    inherited = {tensor["path"]: tensor["inherited"] for tensor in found["tensors"]}
    assert inherited == {"model/w": False, "model/frozen": True}
    owns = [pack["own"] for pack in found["packs"].values()]
    assert sorted(owns) == [False, True]
    assert found["about"]["config"] == {"lr": 0.1}


def test_own_packs_are_told_when_the_parent_is_dropped(as_json: AsJson, output: Output) -> None:
    """Packs of equal length do not confuse which one this checkpoint wrote."""
    state = {"model": {"a": floats(1, 2), "b": floats(3, 4)}}
    first = output.save(state)
    second = output.save({"model": {"a": floats(9, 9), "b": floats(3, 4)}}, parent=first.checkpoint)
    output.save({"model": {"a": floats(8, 8), "b": floats(3, 4)}}, parent=second.checkpoint)
    output.repository.refresh()
    output.repository.drop([second.checkpoint])

    inherited = {t["path"]: t["inherited"] for t in as_json("show", output.url)["tensors"]}

    assert inherited == {"model/a": False, "model/b": True}


def test_every_kind_of_state_is_shown(onward: Onward, as_json: AsJson, output: Output) -> None:
    """Tuples, integer keys, bytes, enums that need not be loaded, infinities, tied tensors."""
    tied = leaf(np.ones((2, 2), np.float32))
    output.save(
        {
            "model": {"a": tied, "b": tied, "empty": leaf(np.zeros((0, 3), np.float32))},
            "other": {1: (1, 2.5), "by": b"ab", "e": Colour.RED, "inf": float("inf"), "none": None},
            "tagged": Tagged("torch.dtype", "float32"),
            "onward": {"global_step": 7, "loaders": {"train": {"batch": 3}}},
        }
    )

    text = onward("show", output.url).stdout
    found = as_json("show", output.url)

    assert "global_step          7" in text
    assert "loaders/train/batch  3" in text
    assert found["values"]["other/[1]/[1]"] == 2.5
    assert found["values"]["other/inf"] == "inf"
    assert found["values"]["other/none"] is None
    assert "RED" in found["values"]["other/e"]
    assert [tensor["path"] for tensor in found["tensors"]] == ["model/a", "model/b", "model/empty"]


def test_checkpoints_go_by_all_their_names(as_json: AsJson, output: Output) -> None:
    """Id, digits of it, vN, latest, an alias, and best in either direction."""
    first, second, third = output.chain(3)
    output.repository.set_alias("champion", second.checkpoint)

    def found(*names: str) -> str:
        return str(as_json("show", output.url, *names)["checkpoint"])

    assert found(second.checkpoint) == second.checkpoint
    assert found(second.checkpoint[:6]) == second.checkpoint
    assert found("v1") == first.checkpoint
    assert found("latest") == third.checkpoint
    assert found("champion") == second.checkpoint
    assert found("best", "--metric", "loss") == first.checkpoint
    assert found("best", "--metric", "loss", "--lowest") == third.checkpoint


def test_an_unknown_checkpoint_says_what_there_is(onward: Onward, output: Output) -> None:
    (only,) = output.chain(1)
    result = onward("show", output.url, "v7", code=2)
    assert "there is no checkpoint 'v7'" in result.stderr
    assert only.checkpoint in result.stderr
    for extra in ([], ["--metric", "nope"]):
        result = onward("show", output.url, "best", *extra, code=2)
        assert "give --metric one of: loss" in result.stderr


def test_a_damaged_manifest_is_an_error_that_says_so(onward: Onward, output: Output) -> None:
    (only,) = output.chain(1)
    output.flip(output.file("manifests", f"{only.checkpoint}.json"))
    result = onward("show", output.url, code=1)
    assert f"manifest {only.checkpoint}" in result.stderr
    assert "is damaged" in result.stderr
    assert "what to do:" in result.stderr


def test_a_missing_manifest_is_damage_too(as_json: AsJson, output: Output) -> None:
    (only,) = output.chain(1)
    output.file("manifests", f"{only.checkpoint}.json").unlink()
    error = as_json("show", output.url, code=1)["error"]
    assert error["type"] == Damaged.__name__
    assert "is missing" in error["what"]


def test_configuration_cannot_drive_the_terminal(onward: Onward, output: Output) -> None:
    """Configuration, reasons, commands and tensor names are all somebody's text."""
    evil = "\x1b[2J\u202eevil\r\n"
    output.save(
        {"model": {evil: floats(1)}, evil: 1},
        about={"config": {evil: evil}, evil: [evil], "command": [evil], "data": {evil: evil}},
        reason=evil,
        verb=evil,
        framework=evil,
        origin={"url": evil, "checkpoint": evil},
    )
    text = onward("show", output.url).stdout
    assert "\u202e" not in text
    assert "\r" not in text
    assert "\\x1b[2J" in text
