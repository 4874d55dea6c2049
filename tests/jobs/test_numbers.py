"""Which of several numbered files is the newest."""

from __future__ import annotations

import pytest

from onward.jobs.numbers import choose_latest


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["ckpt_9.pth", "ckpt_10.pth", "ckpt_2.pth"], ["ckpt_10.pth"]),
        (["ckpt_009.pth", "ckpt_10.pth", "ckpt_1.pth"], ["ckpt_10.pth"]),
        (["a_2.pth", "b_1.pth"], ["a_2.pth", "b_1.pth"]),
        (["model.pth", "ckpt_1.pth", "ckpt_2.pth"], ["ckpt_2.pth", "model.pth"]),
        (["e9/m.pth", "e9/o.pth", "e10/m.pth", "e10/o.pth"], ["e10/m.pth", "e10/o.pth"]),
        (["e1_s900.pth", "e2_s10.pth"], ["e2_s10.pth"]),
        (["ckpt_1.pth", "ckpt_1.pt"], ["ckpt_1.pt", "ckpt_1.pth"]),
        ([], []),
    ],
)
def test_numbers_are_compared_as_numbers(keys: list[str], chosen: list[str]) -> None:
    """Not as text, not by width; what differs in more than numbers is not compared."""
    assert choose_latest(keys).chosen == chosen


@pytest.mark.parametrize(
    "keys",
    [
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["rank0.pt", "rank1.pt"],
        ["s/shard_0.npz", "s/shard_1.npz"],
    ],
)
def test_pieces_of_one_thing_stay_together(keys: list[str]) -> None:
    """A number that counts pieces is not a version."""
    assert choose_latest(keys).chosen == keys


def test_pieces_of_the_newest_are_chosen() -> None:
    """The step is a version, the rank is not."""
    keys = [f"step_{step}/rank{rank}.pt" for step in (9, 10) for rank in (0, 1)]
    assert choose_latest(keys).chosen == ["step_10/rank0.pt", "step_10/rank1.pt"]


def test_what_is_passed_over_is_named_with_what_was_chosen_instead() -> None:
    """So that people can be told."""
    choice = choose_latest(["ckpt_9.pth", "ckpt_10.pth"])
    assert choice.passed_over == {"ckpt_9.pth": "ckpt_10.pth"}
