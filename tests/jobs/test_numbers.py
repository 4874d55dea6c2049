"""Which of several numbered files is the newest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.jobs.numbers import choose_latest
from onward.jobs.series import version_of


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
        (["best_9.pth", "ckpt_10.pth", "ckpt_2.pth"], ["best_9.pth", "ckpt_10.pth"]),
        (["2024.01.15.pth", "2024.02.05.pth"], ["2024.02.05.pth"]),
        (["run_9/ckpt_80.pth", "run_10/ckpt_9.pth", "run_10/ckpt_10.pth"], ["run_10/ckpt_10.pth"]),
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
        ["rng_state_0.pth", "rng_state_1.pth"],
        ["dcp/.metadata", "dcp/__0_0.distcp", "dcp/__1_0.distcp"],
        ["ckpt_9.pth", "ckpt_09.pth"],
    ],
)
def test_pieces_of_one_thing_stay_together(keys: list[str]) -> None:
    """A number that counts pieces is not a version; nor is a 0 in front of one."""
    assert choose_latest(keys).chosen == sorted(keys)


def test_pieces_of_the_newest_are_chosen() -> None:
    """The step is a version, the rank is not."""
    keys = [f"step_{step}/rank{rank}.pt" for step in (9, 10) for rank in (0, 1)]
    assert choose_latest(keys).chosen == ["step_10/rank0.pt", "step_10/rank1.pt"]


def test_what_is_passed_over_is_named_with_what_was_chosen_instead() -> None:
    """So that people can be told."""
    choice = choose_latest(["ckpt_9.pth", "ckpt_10.pth"])
    assert choice.passed_over == {"ckpt_9.pth": "ckpt_10.pth"}


@pytest.mark.parametrize(
    ("keys", "newest"),
    [
        (["net-9_391.ckpt", "net-12_391.ckpt"], "net-12_391.ckpt"),
        (["net-12_391.ckpt", "net_1-2_391.ckpt"], "net_1-2_391.ckpt"),
        (["net_9-2_391.ckpt", "net_10-1_1.ckpt"], "net_10-1_1.ckpt"),
        (["net-2_90.ckpt", "net-2_100.ckpt"], "net-2_100.ckpt"),
        (["resnet50-9_391.ckpt", "resnet50_1-1_391.ckpt"], "resnet50_1-1_391.ckpt"),
        (["net_1-9_5.ckpt", "net_1_1-1_5.ckpt", "net_1_2-1_5.ckpt"], "net_1_2-1_5.ckpt"),
        (["net-9_1.safetensors", "net_1-1_1.safetensors"], "net_1-1_1.safetensors"),
        (["net-9_1_breakpoint.ckpt", "net_1-1_1_breakpoint.ckpt"], "net_1-1_1_breakpoint.ckpt"),
        (["net-graph.meta", "net_2-graph.meta", "net_10-graph.meta"], "net_10-graph.meta"),
        (["a/net-9_1.ckpt", "a/net_1-1_1.ckpt"], "a/net_1-1_1.ckpt"),
    ],
)
def test_a_restarted_mindspore_prefix_is_younger(keys: list[str], newest: str) -> None:
    """By restart, then by epoch, then by step."""
    assert choose_latest(keys).chosen == [newest]
    assert set(choose_latest(keys).passed_over) == set(keys) - {newest}


@pytest.mark.parametrize(
    "keys",
    [
        ["resnet18-9_391.ckpt", "resnet50-1_391.ckpt"],
        ["net-4_1.ckpt", "net-3_20_breakpoint.ckpt"],
        ["net-1_1.ckpt", "net-1_1.safetensors", "net-graph.meta"],
        ["ckpt_0/net-1_5.ckpt", "ckpt_1/net-1_5.ckpt"],
        ["mobilenet_v2-1_5.ckpt", "mobilenet_v3-1_5.ckpt"],
    ],
)
def test_different_mindspore_prefixes_ranks_and_kinds_are_not_compared(keys: list[str]) -> None:
    """A number within a prefix is part of a name, and `ckpt_1/` one process of several."""
    assert choose_latest(keys).chosen == sorted(keys)


def test_the_seed_of_all_this() -> None:
    """One folder with two frameworks' files."""
    keys = ["ckpt_9.pth", "ckpt_10.pth", "net-9_391.ckpt", "net-12_391.ckpt", "net_1-2_391.ckpt"]
    choice = choose_latest(keys)
    assert choice.chosen == ["ckpt_10.pth", "net_1-2_391.ckpt"]
    assert choice.passed_over["net-12_391.ckpt"] == "net_1-2_391.ckpt"
    assert version_of("net_1-2_391.ckpt").words == "restart 1, epoch 2, step 391"


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["epoch=9-step=100.ckpt", "epoch=10-step=20.ckpt"], ["epoch=10-step=20.ckpt"]),
        (["epoch=9-step=1.ckpt", "epoch=9-step=1-v1.ckpt"], ["epoch=9-step=1-v1.ckpt"]),
        (["epoch=9-step=1-v9.ckpt", "epoch=10-step=2.ckpt"], ["epoch=10-step=2.ckpt"]),
        (["last.ckpt", "last-v2.ckpt", "last-v10.ckpt"], ["last-v10.ckpt"]),
        (["last.ckpt", "epoch=1-step=1.ckpt"], ["epoch=1-step=1.ckpt", "last.ckpt"]),
        (["loss=0.31-epoch=9.ckpt", "loss=-0.2-epoch=10.ckpt"], ["loss=-0.2-epoch=10.ckpt"]),
        (["epoch=9-loss=1.5.ckpt", "epoch=10-loss=0.5.ckpt"], ["epoch=10-loss=0.5.ckpt"]),
    ],
)
def test_lightnings_names(keys: list[str], chosen: list[str]) -> None:
    """Epoch and step before the version; what is measured does not count."""
    assert choose_latest(keys).chosen == chosen


def test_what_differs_only_in_what_is_measured_is_not_compared() -> None:
    """0.91 may be the better or the worse, the older or the newer."""
    keys = ["model_0.89.pth", "model_0.91.pth"]
    assert choose_latest(keys).chosen == keys


def test_a_folder_that_is_one_checkpoint_is_chosen_whole() -> None:
    """Every file of the newest, whatever it is called; nothing of the others."""
    newest = ["model.safetensors", "optimizer_1.bin", "optimizer_2.bin", "global_step1000/rank0.pt"]
    keys = [f"runs/checkpoint-1000/{name}" for name in newest]
    old = ["runs/checkpoint-500/model.safetensors", "runs/checkpoint-500/more.json"]
    choice = choose_latest([*old, *keys, "runs/trainer.log"])
    assert choice.chosen == sorted([*keys, "runs/trainer.log"])
    assert choice.passed_over == dict.fromkeys(old, "runs/checkpoint-1000/")


@pytest.mark.parametrize(
    "folder",
    ["checkpoint-{}", "checkpoint_{:06d}", "step_{}", "global_step{}", "epoch_{}", "iter_{:07d}",
     "epoch=0-step={}.ckpt", "x/ckpt_{}/y"],
)  # fmt: skip
def test_folders_that_are_checkpoints(folder: str) -> None:
    """As transformers, Ray, accelerate, DeepSpeed, Megatron and Lightning call them."""
    keys = [f"{folder.format(step)}/{name}" for step in (9, 10) for name in ("w_1.bin", "w_2.bin")]
    assert choose_latest(keys).chosen == keys[2:]


starts = st.lists(
    st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True), min_size=1, max_size=12
)


@given(
    prefix=st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True),
    starts=starts,
)
def test_the_last_epoch_of_the_last_start_is_chosen(prefix: str, starts: list[list[int]]) -> None:
    """Whatever the prefix is, however many starts there were, however few epochs the last had."""
    keys = []
    for number, epochs in enumerate(starts):
        name = f"{prefix}_{number}" if number else prefix
        keys += [f"{name}-{epoch}_391.ckpt" for epoch in epochs]
    last = f"_{len(starts) - 1}" if len(starts) > 1 else ""
    assert choose_latest(keys).chosen == [f"{prefix}{last}-{max(starts[-1])}_391.ckpt"]


names = st.from_regex(
    r"([a-z]{1,3}[-_=.]?[0-9]{0,3}/)?(net|ckpt|last|epoch=|rank|step_)[-_]?[0-9]{0,3}"
    r"([-_.][0-9]{1,2}){0,2}(-v[0-9])?\.(ckpt|pth|bin)",
    fullmatch=True,
)


@given(keys=st.sets(names, max_size=20))
def test_every_file_is_chosen_or_passed_over_for_what_was_chosen(keys: set[str]) -> None:
    """Nothing is lost, nothing is both, each series has a newest; the rest changes nothing."""
    choice = choose_latest(keys)
    assert set(choice.chosen) | set(choice.passed_over) == keys
    assert not set(choice.chosen) & set(choice.passed_over)
    assert set(choice.passed_over.values()) <= {version_of(key).name for key in choice.chosen}
    assert {version_of(k).series for k in choice.chosen} == {version_of(k).series for k in keys}
    assert choose_latest(choice.chosen).chosen == choice.chosen


@given(number=st.integers(0, 10**20), template=st.sampled_from(["ckpt_{}.pth", "{}", "e{}/w.pt"]))
def test_one_more_is_always_newer(number: int, template: str) -> None:
    """However many digits it has."""
    keys = [template.format(number), template.format(number + 1)]
    assert choose_latest(keys).chosen == keys[1:]
