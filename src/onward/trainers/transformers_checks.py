"""What the callback for `transformers` refuses, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.training_args import ParallelMode

from onward.errors import UsageError
from onward.frameworks.versions import Tested

TESTED = Tested(
    "transformers",
    (5, 3),
    (5, 24),
    older="its loop keeps state where nobody could save it",
    newer="an exact resume depends on how its loop is written, and this one is not known yet",
)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `UsageError` for objects that the trainer itself has to give."""
    taken = ("model", "optimizer", "scheduler", "scaler", "trainer")
    given = [name for name in options if name in taken]
    if given:
        raise UsageError(
            f"OnwardCallback was given {', '.join(given)}",
            why="model, optimizer, scheduler and scaler are taken from the trainer",
            do="leave them away, or call your own object by another name",
        )


def check_trainer(trainer: Any, *, penalties: bool) -> None:
    """Raises `UsageError` for the first thing that could not be resumed exactly."""
    args = trainer.args
    alone = args.world_size == 1 and args.parallel_mode in (
        ParallelMode.NOT_PARALLEL,
        ParallelMode.NOT_DISTRIBUTED,
    )
    sharded = {
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "FSDP": trainer.is_fsdp_enabled or bool(args.fsdp),
        f"{args.world_size} processes": not alone,
    }
    for name, used in sharded.items():
        if used:
            raise UsageError(
                f"an OnwardCallback does not train with {name} yet",
                why="each process holds a part of the state, and one checkpoint must hold all",
                do="train in one process, or without the callback",
            )
    clashes = {
        "auto_find_batch_size": "batches of another size would not be those that were counted",
        "ignore_data_skip": "a resumed epoch would begin anew",
        "enable_jit_checkpoint": "both it and Onward answer SIGTERM, by a save of their own",
    }
    for name, why in clashes.items():
        if getattr(args, name, False):
            raise UsageError(
                f"{name}=True cannot be used with an OnwardCallback", why=why, do="leave it out"
            )
    if penalties and args.gradient_accumulation_steps > 1:
        raise UsageError(
            "this strategy cannot be used with gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps}",
            why="the trainer fetches all batches of a step before the first is learned, so that "
            "the penalty would be about another batch",
            do="use a larger per_device_train_batch_size and no accumulation, or a strategy that "
            'only chooses batches (such as "er")',
        )
