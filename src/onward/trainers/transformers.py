"""Hugging Face `transformers`: a callback that keeps what a `Trainer` trains in an output.

    trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[OnwardCallback("out")])
    trainer.train()

The trainer keeps its loop, its schedule and its words. Onward opens the output once the optimizer
exists, gives the loop its batches (what is new, old samples mixed in), and saves after steps. What
a callback is not told (batches, and the place in the loop) comes from a class laid over the
trainer's own: `transformers_loop`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from onward.errors import OnwardError, UsageError
from onward.learning.hooks import Penalty
from onward.learning.strategies import hooks_of
from onward.trainers.transformers_checks import TESTED, check_options, check_trainer
from onward.trainers.transformers_loop import Incremental, steps_of
from onward.trainers.transformers_parts import TrainerParts
from onward.training.run import Run
from onward.training.session import open as open_run
from onward.training.session import wishes_for

__all__ = ["OnwardCallback"]

_TOLD = (
    "learning_rate", "weight_decay", "max_grad_norm", "optim", "lr_scheduler_type", "warmup_steps",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "label_smoothing_factor", "bf16", "fp16", "seed", "data_seed",
)  # fmt: skip


class OnwardCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Resumes, continues and saves the training of the `Trainer` that it is given to.

    `url` is the output, by default that of `onward run`. `num_train_epochs` and `max_steps` of the
    trainer's arguments are this increment's own budget; `plan` (such as `"0.2 x retrain"`, see
    `Run.plan`) takes their place, from the second increment on as a share of what the first would
    train on all the data.

    A map-style `train_dataset` is read through `run.loader` with the trainer's batch size,
    collator and workers: each increment learns what is new in it, with old samples mixed in. `ids`,
    `labels`, `replay`, `holdout`, `only_new` and `raw` are those of `Run.loader`. A stream, and a
    trainer with a sampler or loader of its own, are read through `run.batches`.

    `prepare` is called with the run before any data is looked at, for `run.scoring` and
    `run.holdout`. All other options are those of `onward.open`; further objects with state (an
    average of the weights, say) may be among them.

    `trainer.train()` raises `UsageError` for what cannot be resumed exactly: `transformers` outside
    of the tested range, several processes, DeepSpeed, FSDP, `resume_from_checkpoint`; `NothingNew`
    (which ends a script with status 0) on a finished model without new data; `Stopped` once all is
    saved after SIGTERM.

        OnwardCallback("out", save_every_steps=500, keep_last=3)
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | None = None,
        *,
        plan: int | float | str | None = None,
        ids: Any = None,
        labels: Any = None,
        replay: Any = "uniform",
        holdout: float = 0.0,
        only_new: bool = False,
        raw: Callable[[int], Any] | None = None,
        prepare: Callable[[Run], None] | None = None,
        **options: Any,
    ) -> None:
        TESTED.check(transformers.__version__)
        check_options(options)
        self.run: Run | None = None
        """The run of the training that goes on, or of the last one."""
        self.loader: Any = None
        """Where its batches come from."""
        self.parts: TrainerParts | None = None
        """What of the trainer is in the checkpoint."""
        self.planned_steps: int | None = None
        """Optimizer steps of this increment, where a plan decided them."""
        self.has_penalties = False
        self._url = url
        self._plan = plan
        self._prepare = prepare
        self._options = options
        self._reading = {
            "ids": ids, "labels": labels, "replay": replay, "holdout": holdout,
            "only_new": only_new, "raw": raw,
        }  # fmt: skip

    # What the trainer calls.

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Callbacks are told everything but whose they are; the trainer is among those that called.
        frame = sys._getframe(1)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, Trainer):
                self.attach(caller)
                return
            frame = frame.f_back  # type: ignore[assignment]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run is None or self.parts is None:
            raise UsageError(
                "the OnwardCallback does not know its trainer",
                why="it was added after the trainer was made, and its output is not open",
                do="give it to the trainer, Trainer(callbacks=[OnwardCallback(…)]), or call "
                "callback.attach(trainer) before trainer.train()",
            )
        self.parts.apply_to_loop(control)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.run is not None:
            self.run.enter_epoch(self.run.epoch)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.run is not None:
            numbers = {
                key: value
                for key, value in (logs or {}).items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            self.run.log(**numbers)

    # What the trainer's loop calls, through `Incremental`.

    def attach(self, trainer: Any) -> None:
        """Makes `trainer` train incrementally. Called by itself, unless it is added afterwards."""
        if isinstance(trainer, Incremental):
            raise UsageError(
                "the trainer has an OnwardCallback already", do="give it one callback, one output"
            )
        kind = type(trainer)
        trainer.__class__ = type(
            kind.__name__, (Incremental, kind), {"__module__": kind.__module__}
        )
        trainer.onward = self
        # First, so that an epoch is entered before anyone draws a random number in it.
        callbacks = trainer.callback_handler.callbacks
        if self in callbacks:
            callbacks.remove(self)
        callbacks.insert(0, self)

    def begin(self, trainer: Any) -> Any:
        """Opens the output, restores everything that exists, and returns the trainer's batches."""
        options = dict(self._options)
        hooks = hooks_of(options.pop("strategy", ()))
        # The job may ask for another one, which is checked too; `open` says so and makes it.
        chosen = wishes_for(self._url).hooks(hooks, say=lambda _: None)
        self.has_penalties = any(isinstance(hook, Penalty) for hook in chosen)
        check_trainer(trainer, penalties=self.has_penalties)
        trainer.optimizer = trainer.accelerator.prepare(trainer.create_optimizer())
        args = trainer.args
        options.setdefault("seed", args.seed if args.data_seed is None else args.data_seed)
        options.setdefault("config", {name: getattr(args, name, None) for name in _TOLD})
        self.parts = TrainerParts(trainer)
        self.run = open_run(
            self._url,
            model=trainer.model,
            optimizer=getattr(trainer.optimizer, "optimizer", trainer.optimizer),
            scaler=trainer.accelerator.scaler,
            trainer=self.parts,
            strategy=hooks,
            **options,
        )
        self.parts.opened(resumed=self.run.verb == "resume")
        if self._prepare is not None:
            self._prepare(self.run)
        self.loader = self._loader_for(trainer, self.run)
        self.parts.check_place(self.loader.batches_taken)
        self._plan = self.run.budget_for(self._plan)
        self._make_plan(trainer, self.run)
        return self.loader

    def end(self) -> None:
        """All is trained: the increment is finished."""
        if self.run is not None:
            self.run.finish()

    def abandon(self) -> None:
        """Lets go of the output after an error, which is the one to be raised."""
        if self.run is not None:
            try:
                self.run.close()
            except OnwardError as second:
                print(f"onward: {second}", file=sys.stderr)

    def let_go(self) -> None:
        """Another training may begin, with a run of its own."""
        self.run = self.loader = self.parts = self.planned_steps = None

    # Details.

    def _loader_for(self, trainer: Any, run: Run) -> Any:
        args = trainer.args
        if _reads_its_own_way(trainer):
            self._refuse_options_of_loader()
            own = trainer.own_train_dataloader()
            return run.batches(getattr(own, "base_dataloader", own))
        workers: dict[str, Any] = {"num_workers": args.dataloader_num_workers}
        if args.dataloader_num_workers:
            workers["persistent_workers"] = args.dataloader_persistent_workers
            workers["prefetch_factor"] = args.dataloader_prefetch_factor
            workers["multiprocessing_context"] = getattr(
                args, "dataloader_multiprocessing_context", None
            )
        dataset, collate = trainer.dataset_and_collator()
        return run.loader(
            dataset,
            batch_size=trainer._train_batch_size,
            collate_fn=collate,
            shuffle=args.train_sampling_strategy != "sequential",
            drop_last=args.dataloader_drop_last,
            pin_memory=args.dataloader_pin_memory and trainer.accelerator.device.type != "cpu",
            **workers,
            **self._reading,
        )

    def _refuse_options_of_loader(self) -> None:
        usual = {"replay": "uniform", "holdout": 0.0, "only_new": False}
        given = [name for name, value in self._reading.items() if value != usual.get(name)]
        if given:
            raise UsageError(
                f"{', '.join(given)}= cannot be used with this trainer",
                why="its train_dataset is a stream, or it has a sampler or loader of its own, so "
                "that nobody can tell which items a batch is made of",
                do="use a map-style train_dataset and the trainer's own loader, or leave them out",
            )

    def _make_plan(self, trainer: Any, run: Run) -> None:
        args = trainer.args
        try:
            batches = len(self.loader)
        except TypeError:
            batches = None
        asked = self._plan
        if asked is None and args.max_steps > 0:
            asked = f"{args.max_steps} steps"
        elif asked is None and batches is not None:
            asked = args.num_train_epochs
            if not float(asked).is_integer():
                # The trainer rounds the steps of a broken epoch in its own way.
                asked = f"{steps_of(args, batches)} steps"
        if asked is None or batches is None:
            if self._plan is not None:
                raise UsageError(
                    f"plan={self._plan!r} needs a train_dataset with a length",
                    do="leave plan= out and say TrainingArguments(max_steps=…)",
                )
            return
        retrain_epochs: float | None = None
        if (
            run.increment == 1
        ):  # how it is trained from scratch, whatever later plans are a share of
            whole = math.ceil(batches / args.gradient_accumulation_steps)
            by_steps = args.max_steps > 0
            retrain_epochs = args.max_steps / whole if by_steps else args.num_train_epochs
        plan = run.plan(
            asked,
            retrain_epochs=retrain_epochs,
            schedule=False,
            accumulate=args.gradient_accumulation_steps,
        )
        if self._plan is not None:
            if plan.steps is None:
                raise UsageError(
                    f"plan={self._plan!r} is a time, and the trainer counts steps",
                    why="its learning rate is scheduled over a number of steps known before",
                    do='give epochs, "500 steps" or "0.2 x retrain"',
                )
            self.planned_steps = plan.steps


def _reads_its_own_way(trainer: Any) -> bool:
    """Whether the order of samples is not the usual one that `run.loader` stands in for."""
    changed = any(
        getattr(type(trainer).__mro__[2], name) is not getattr(Trainer, name)
        for name in ("get_train_dataloader", "_get_train_sampler", "_get_dataloader")
    )
    dataset = trainer.train_dataset
    whole = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    stream = isinstance(dataset, IterableDataset) or not whole
    by_length = trainer.args.train_sampling_strategy not in ("random", "sequential")
    return changed or stream or by_length
