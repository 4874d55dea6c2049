"""The tutorials' PyTorch script, which knows nothing of Onward, under `onward run`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onward.jobs.numbers import RULE
from tests.jobs.bench import Bench
from tests.jobs.classic import EXAMPLES, Classic, code_without_docstring, write_idx, write_npz

NAME = "torch_classic.py"


@pytest.fixture
def classic(bench: Bench, s3_url: Callable[[str], str]) -> Classic:
    write_npz(bench.data, 64)
    return Classic(NAME, bench, s3_url)


def losses(printed: str) -> list[float]:
    return [float(text) for text in re.findall(r"loss ([\d.]+)", printed)]


def test_it_loads_the_largest_epoch_in_a_folder(bench: Bench) -> None:
    """As a number: 10 after 9. Data as IDX files, gzipped as they are published, then more."""
    write_idx(bench.data, 32)
    arguments = (str(EXAMPLES / NAME), "--data", "data", "--output", "out", "--", "--epochs")
    bench.command(*arguments, "10")
    write_npz(bench.data, 32)
    out, err = bench.command(*arguments, "1")
    assert "loaded ckpt_10.pth" in out
    assert "epoch 11" in out
    assert (bench.output / "ckpt_11.pth").exists()
    assert "1 plain file" in err
    assert "pushed" not in err


def test_it_knows_nothing_of_onward_and_is_short() -> None:
    """Code without a trace of it; at most 120 lines."""
    assert "onward" not in code_without_docstring(EXAMPLES / NAME)
    assert len((EXAMPLES / NAME).read_text().splitlines()) <= 120


@pytest.mark.servers
def test_another_machine_goes_on_from_the_newest_alone(classic: Classic) -> None:
    """Ten epochs, the machine is gone: the eleventh begins with the tenth's weights."""
    out, _ = classic.run("--epochs", "10")
    before = losses(out)
    assert classic.at_store() == {f"ckpt_{epoch}.pth" for epoch in range(1, 11)}
    classic.forget_this_machine()
    assert [file["key"] for file in classic.plan()["files"]["fetch"]] == ["ckpt_10.pth"]
    out, err = classic.run("--epochs", "1")
    assert "loaded ckpt_10.pth" in out
    assert "plain files: ckpt_10.pth, not ckpt_9.pth, ckpt_8.pth, ckpt_7.pth and 6 more" in err
    assert "epoch 11" in out
    assert losses(out)[0] < before[1]
    assert classic.here() == {"ckpt_10.pth", "ckpt_11.pth"}


@pytest.mark.servers
def test_another_machine_has_all_if_it_asks_for_all(classic: Classic) -> None:
    """The script chooses; nothing is left at the store."""
    classic.run("--epochs", "3")
    classic.forget_this_machine()
    out, err = classic.run("--epochs", "1", predownload="all")
    assert "loaded ckpt_3.pth" in out
    assert "plain files: all" in err
    assert classic.here() == {f"ckpt_{epoch}.pth" for epoch in range(1, 5)}


@pytest.mark.servers
def test_programs_are_told_what_was_chosen(classic: Classic) -> None:
    """`--json`: the rule, what was fetched, and what was passed over for it."""
    classic.run("--epochs", "2")
    classic.forget_this_machine()
    out, _ = classic.run("--epochs", "1", json=True)
    files = json.loads(out)["files"]
    assert [file["key"] for file in files["fetch"]] == ["ckpt_2.pth"]
    assert files["passed_over"] == {"ckpt_1.pth": "ckpt_2.pth"}
    assert files["rule"] == RULE


@pytest.mark.servers
def test_a_torn_newest_at_the_store_gives_way_to_the_one_before(
    classic: Classic, tmp_path: Path
) -> None:
    """Somebody's upload broke off: the script goes on from what is whole."""
    classic.run("--epochs", "2")
    whole = classic.store.read("ckpt_2.pth")
    classic.store.put("ckpt_2.pth", [whole[:-100]], len(whole) - 100)
    classic.forget_this_machine()
    out, err = classic.run("--epochs", "1")
    assert "ckpt_2.pth is torn at the store" in err
    assert "loaded ckpt_1.pth" in out
    mended = tmp_path / "ckpt_2.pth"
    mended.write_bytes(classic.store.read("ckpt_2.pth"))
    assert torch.load(mended, weights_only=True)["epoch"] == 2
