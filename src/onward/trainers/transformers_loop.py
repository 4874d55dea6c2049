"""The trainer's own loop, entered where an increment stopped; what a callback cannot reach.

Each method does one thing before or after the trainer's own. The names that begin with `_` are not
public in `transformers`: the tested range of versions is there because of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import trainer as _trainer

from onward.errors import UsageError

if TYPE_CHECKING:
    from onward.trainers.transformers import OnwardCallback

_MODULE: Any = _trainer


class Incremental:
    """Laid over the class of a `Trainer` that has an `OnwardCallback`."""

    onward: OnwardCallback
    _onward_training = False
    # The trainer's own.
    args: Any
    state: Any
    control: Any
    data_collator: Any
    train_dataset: Any

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """`Trainer.train`, of one increment: resumed, continued, or begun."""
        if resume_from_checkpoint:
            raise UsageError(
                "resume_from_checkpoint= and an OnwardCallback both say where to go on from",
                why="the output holds the newest complete state, at any step, and Onward goes on "
                "from there by itself",
                do='leave resume_from_checkpoint= out (and name a checkpoint by checkpoint="…" of '
                "the callback), or train without the callback",
            )
        if trial is not None:
            raise UsageError(
                "a hyperparameter search cannot be kept in one output",
                why="each trial is a model of its own",
                do="search without the OnwardCallback, and train the best with it",
            )
        self.onward.let_go()
        self._onward_training = True
        try:
            output = super().train(None, None, *args, **kwargs)  # type: ignore[misc]
            self.onward.end()
            return output
        except BaseException:
            self.onward.abandon()
            raise
        finally:
            self._onward_training = False

    # Where batches come from.

    def get_train_dataloader(self) -> Any:
        """Onward's positioned batches while training; the trainer's own loader otherwise."""
        if not self._onward_training:
            return self.own_train_dataloader()
        return self.onward.loader if self.onward.run is not None else self.onward.begin(self)

    def own_train_dataloader(self) -> Any:
        """What the trainer would have used."""
        return super().get_train_dataloader()  # type: ignore[misc]

    def dataset_and_collator(self) -> tuple[Any, Any]:
        """The training data and its collator, without columns that the model does not take."""
        trainer: Any = self
        dataset, collate = self.train_dataset, self.data_collator
        if _MODULE.is_datasets_available():
            import datasets  # type: ignore[import-not-found, unused-ignore]

            if isinstance(dataset, datasets.Dataset):
                return trainer._remove_unused_columns(dataset, description="Training"), collate
        return dataset, trainer._get_collator_with_removed_columns(collate, description="Training")

    # Where in the loop it begins.

    def set_initial_training_values(self, args: Any, *rest: Any, **kwargs: Any) -> Any:
        """The trainer's arithmetic, with the steps of the plan where there is one."""
        planned, own = self.onward.planned_steps, args.max_steps
        if planned is not None:
            args.max_steps = planned
        try:
            return super().set_initial_training_values(args, *rest, **kwargs)  # type: ignore[misc]
        finally:
            args.max_steps = own

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: Any,
        trial: Any,
    ) -> tuple[int, int]:
        fresh: tuple[int, int] = super()._init_training_state(  # type: ignore[misc]
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        parts, run = self.onward.parts, self.onward.run
        assert parts is not None
        assert run is not None
        if not parts.resumed:
            return fresh
        parts.apply_to_state(self.state)
        taken = self.onward.loader.batches_taken
        if not taken and parts.stopped:
            return num_train_epochs, 0  # it had decided to end, and only that is left to do
        return run.epoch, taken

    def _run_epoch(self, **given: Any) -> None:
        run, parts, loader = self.onward.run, self.onward.parts, self.onward.loader
        assert run is not None
        assert parts is not None
        taken = loader.batches_taken
        if not taken:
            super()._run_epoch(**given)  # type: ignore[misc]
        else:
            # The trainer's own way to go on within an epoch, but for fetching and dropping what
            # comes before: the loader is there already, and randomness with its first batch.
            given |= {
                "epochs_trained": given["epoch"],
                "steps_trained_in_current_epoch": taken,
                "resume_from_checkpoint": "onward",
            }
            if parts.stopped or taken == _length(loader):
                given["train_dataloader"] = ()
                given["steps_trained_in_current_epoch"] = given["steps_in_epoch"]
                loader.on_first_batch()
            with _without_skipping():
                super()._run_epoch(**given)  # type: ignore[misc]
        run.leave_epoch()

    def _load_rng_state(self, checkpoint: Any) -> None:
        return  # the run sets the generators when the first batch is handed out

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False
    ) -> dict[str, float]:
        run = self.onward.run
        if skip_scheduler and run is not None and run.verb == "resume":
            return {}  # eval_on_start: this increment has started in another process
        found: dict[str, float] = super()._evaluate(  # type: ignore[misc]
            trial, ignore_keys_for_eval, skip_scheduler=skip_scheduler
        )
        return found

    # What it does after a step.

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *args: Any, learning_rate: Any = None, **kwargs: Any
    ) -> None:
        run, parts = self.onward.run, self.onward.parts
        if run is None or parts is None:
            super()._maybe_log_save_evaluate(  # type: ignore[misc]
                tr_loss, grad_norm, *args, learning_rate=learning_rate, **kwargs
            )
            return
        grad_norm, learning_rate = parts.last_told(grad_norm, learning_rate)
        super()._maybe_log_save_evaluate(  # type: ignore[misc]
            tr_loss, grad_norm, *args, learning_rate=learning_rate, **kwargs
        )
        # Only now the step is over: with what it logged, and what an evaluation decided. The
        # trainer also comes here at an epoch's end, which is no step.
        if parts.counts_step():
            run.step()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """The trainer's loss, and in training what the strategy adds to it."""
        run = self.onward.run
        if not (self.onward.has_penalties and model.training and run is not None):
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)  # type: ignore[misc]
        loss, outputs = super().compute_loss(model, inputs, True, *args, **kwargs)  # type: ignore[misc]
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
        loss = loss + run.penalty(logits)
        return (loss, outputs) if return_outputs else loss


def steps_of(args: Any, batches: int) -> int:
    """How many optimizer steps the trainer makes of its epochs."""
    each = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    steps: int = math.ceil(args.num_train_epochs * each)
    return steps


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


@contextmanager
def _without_skipping() -> Iterator[None]:
    own = _MODULE.skip_first_batches
    _MODULE.skip_first_batches = lambda dataloader, num_batches=0: dataloader
    try:
        yield
    finally:
        _MODULE.skip_first_batches = own
