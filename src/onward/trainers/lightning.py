"""Lightning: a callback that keeps what a `Trainer` trains in an output.

    trainer = L.Trainer(max_epochs=3, callbacks=[OnwardCallback("out")])
    trainer.fit(module, loader)

The trainer keeps its loops, its schedule and its words. Onward opens the output once module,
optimizers and schedulers exist, gives the loop its batches, and counts, saves and restores before
each of them (see `lightning_loop`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch import Callback

from onward.errors import UsageError
from onward.trainers import lightning_checks as checks
from onward.trainers.lightning_loop import Evaluated, Feed, Wanted, evaluated
from onward.trainers.lightning_parts import TrainerParts
from onward.trainers.lightning_signals import Handlers
from onward.training.run import Run
from onward.training.session import open as open_run

__all__ = ["OnwardCallback"]


class OnwardCallback(Callback):
    """Resumes, continues and saves the training of the `Trainer` that it is given to.

    `url` is the output, by default that of `onward run`. `max_epochs` and `max_steps` of the
    trainer are this increment's own budget; `plan` (such as `"0.2 x retrain"`, see `Run.plan`)
    takes their place.

    The train loader that the trainer is given is read through `run.batches`. To have each increment
    learn what is new, with old samples mixed in, give the trainer `callback.loader(dataset, …)`
    instead, or return that from a `train_dataloader` hook.

    `prepare` is called with the run before any data is looked at, for `run.scoring` and
    `run.holdout`. All other options are those of `onward.open`; further objects with state may be
    among them. In `validate`, `test`, `predict` and with `fast_dev_run` the callback does nothing.

    `trainer.fit` raises `UsageError` for what cannot be resumed exactly: `lightning` outside of the
    tested range, several processes, sharded strategies, several train loaders, `ckpt_path`;
    `NothingNew` (which ends a script with status 0) on a finished model without new data; `Stopped`
    once all is saved after SIGTERM.

        OnwardCallback("out", save_every_steps=500, keep_last=3)
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | None = None,
        *,
        plan: int | float | str | None = None,
        prepare: Callable[[Run], None] | None = None,
        **options: Any,
    ) -> None:
        checks.TESTED.check(lightning.__version__)
        checks.check_options(options)
        self.run: Run | None = None
        """The run of the training that goes on, or of the last one."""
        self._url = url
        self._plan = plan
        self._prepare = prepare
        self._options = options
        self._fit: _Fit | None = None

    def loader(self, dataset: Any, *, batch_size: int = 1, **options: Any) -> Any:
        """What is new in `dataset`, with old samples mixed in: `Run.loader`, to be made by `fit`.

        Give it to `trainer.fit`, or return it from a `train_dataloader` hook.

            trainer.fit(module, callback.loader(dataset, batch_size=64, ids=names))
        """
        return Wanted(dataset, {"batch_size": batch_size, **options})

    # What the trainer calls.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._let_go()
        if stage == "fit" and not trainer.fast_dev_run:
            checks.check_trainer(trainer, pl_module)
            if any(isinstance(c, OnwardCallback) and c is not self for c in trainer.callbacks):
                raise UsageError(
                    "the trainer has two OnwardCallbacks",
                    why="both would decide where training goes on",
                    do="give it one callback, one output",
                )
            # Last of all, so that what the others do at the same time is in the checkpoint.
            trainer.callbacks = [*(c for c in trainer.callbacks if c is not self), self]
            self._fit = _Fit(trainer)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self._fit is not None:
            checks.check_no_file(trainer)
            options = {
                # What L.seed_everything was given; an increment that goes on keeps its own.
                "seed": int(os.environ.get("PL_GLOBAL_SEED", 0)),
                "config": dict(pl_module.hparams) or None,
                **self._options,
            }
            self.run = self._fit.open(self._url, options)
            if self._prepare is not None:
                self._prepare(self.run)
            self._fit.begin(self.run.budget_for(self._plan))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._fit is not None:
            self._fit.handlers.listen()

    def on_train_batch_end(self, *args: Any) -> None:
        if self._fit is not None:
            self._fit.pending = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._fit is not None:
            self._fit.finish()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self._fit is not None:
            self._fit.finish()  # where there was nothing to train any more

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._fit is not None:
            self._fit.give_up(exception)
        self._let_go()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._fit is not None:
            self._fit.let_go()
            self._fit = None


class _Fit:
    """One call of `trainer.fit`, from the set-up of its data to the end of its increment."""

    def __init__(self, trainer: Any) -> None:
        self.handlers = Handlers(trainer)
        self.pending = False
        """Whether a batch was trained on that the run has not been told of."""
        self._trainer = trainer
        self._run: Run | None = None
        self._parts = TrainerParts(trainer)
        self._feed: Feed | None = None
        self._validation: list[Evaluated] = []
        self._in_epoch = False
        self._finished = False
        self._undo: list[Callable[[], None]] = []
        # Before optimizers are made: whoever makes them may ask how long the loader is.
        self._instead(trainer.fit_loop, self._fed)
        self._instead(trainer.fit_loop.epoch_loop.val_loop, self._evaluated)

    def open(self, url: Any, options: dict[str, Any]) -> Run:
        """Opens the output, and restores everything into the objects that the trainer has made."""
        trainer = self._trainer
        objects: dict[str, Any] = {"model": trainer.lightning_module, "trainer": self._parts}
        objects |= _numbered("optimizer", trainer.optimizers)
        objects |= _numbered("scheduler", [c.scheduler for c in trainer.lr_scheduler_configs])
        with self.handlers.replaced():
            self._run = run = open_run(url, **objects, **options)
        if run.verb == "resume":
            self._parts.resume()
            # It was done when the increment began, and what came of it is restored.
            self._set(trainer, "num_sanity_val_steps", 0)
        else:
            self._parts.carry_over(weights_are_new=run.verb == "branch")
        return run

    def begin(self, plan: int | float | str | None) -> None:
        """Makes the loader and the plan; says if there is nothing new to train on."""
        run, trainer = self._opened(), self._trainer
        trainer.fit_loop.setup_data()
        if self._feed is not None:
            if self._feed.positioned is None:
                self._feed.bind(run)
            checks.check_length(trainer, self._feed)
            self._make_plan(run, plan)
            if run.verb == "continue":
                run.enter_epoch(run.epoch)
                self._in_epoch = True
        if self._parts.ended:
            self._set(trainer, "limit_train_batches", 0)  # the loops are through

    def finish(self) -> None:
        """The loops have ended: the increment is finished."""
        if self._finished:
            return
        run = self._opened()
        self._parts.ended = True
        self._tell_of_step(run)
        if self._feed is not None:
            self._feed.end()
        self._leave_epochs(run, before=self._trainer.current_epoch)
        run.finish()
        self._finished = True

    def give_up(self, error: BaseException) -> None:
        """Closes the output after an error, which is the one to be raised."""
        if self._run is not None:
            self._run.__exit__(type(error), error, error.__traceback__)

    def let_go(self) -> None:
        """Leaves the trainer as it was."""
        while self._undo:
            self._undo.pop()()
        for loader in self._validation:
            loader.close()
        self.handlers.give_back()

    # Called for every batch.

    def _before_batch(self, first: bool) -> None:
        run, trainer = self._opened(), self._trainer
        self._parts.at_batch()
        self._tell_of_step(run)
        if first:
            assert self._feed is not None
            self._feed.end()
            self._leave_epochs(run, before=trainer.current_epoch)
            if not self._in_epoch:
                run.enter_epoch(trainer.current_epoch)
                self._in_epoch = True

    def _tell_of_step(self, run: Run) -> None:
        if self.pending:
            self.pending = False
            run.step(**self._trainer.callback_metrics)

    def _leave_epochs(self, run: Run, *, before: int) -> None:
        while run.epoch < before:
            if not self._in_epoch:
                run.enter_epoch(run.epoch)
            run.leave_epoch()
            self._in_epoch = False

    # Details.

    def _opened(self) -> Run:
        assert self._run is not None
        return self._run

    def _fed(self, found: Any) -> Feed:
        checks.check_train_loader(found)
        self._feed = Feed(found, self._before_batch)
        if self._run is not None:
            self._feed.bind(self._run)
        return self._feed

    def _evaluated(self, found: Any) -> Any:
        combined, wrapped = evaluated(found, lambda: self._opened().global_step)
        self._validation += wrapped
        return combined

    def _make_plan(self, run: Run, asked: int | float | str | None) -> None:
        loop = self._trainer.fit_loop
        schedule: bool | None = None
        if asked is None:
            schedule = False
            if loop.max_steps > 0:
                asked = f"{loop.max_steps} steps"
            elif loop.max_epochs > 0:
                asked = loop.max_epochs
        assert self._feed is not None
        try:
            known = len(self._feed) > 0
        except (TypeError, NotImplementedError):
            known = False
        automatic = self._trainer.lightning_module.automatic_optimization
        if schedule is None and not (known and automatic):
            raise UsageError(
                f"plan={asked!r} cannot be followed",
                why="how many optimizer steps an epoch has is not known: the loader has no length, "
                "or the module optimizes by itself",
                do="leave plan= away and give the Trainer max_epochs or max_steps",
            )
        if asked is None or not (known and automatic):
            return
        plan = run.plan(asked, schedule=schedule, accumulate=self._trainer.accumulate_grad_batches)
        if schedule is None:
            if plan.steps is None:
                raise UsageError(
                    f"plan={asked!r} is a time, and the trainer counts steps",
                    do='give epochs, "500 steps" or "0.2 x retrain"; Trainer(max_time=…) ends '
                    "after a time",
                )
            self._set(loop, "max_epochs", -1)
            self._set(loop.epoch_loop, "max_steps", plan.steps)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def _instead(self, loop: Any, make: Callable[[Any], Any]) -> None:
        source = loop._data_source
        original = source.dataloader
        source.dataloader = lambda: make(original())
        self._undo.append(lambda: source.__dict__.pop("dataloader", None))


def _numbered(name: str, things: list[Any]) -> dict[str, Any]:
    if len(things) == 1:
        return {name: things[0]}
    return {f"{name}{index}": thing for index, thing in enumerate(things)}
