"""The object in a user's loop: restores, counts, saves, stops when asked to.

Its methods are what scripts and trainers know: one class in one long file, so that their promises
are read together. What they do is done in the rooms that are imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from onward.data.file_list import DATA_FILES
from onward.errors import (
    EmptyBudget,
    NothingNew,
    OnwardError,
    Stopped,
    UsageError,
)
from onward.frameworks.base import Framework
from onward.learning.gate import Verdict
from onward.learning.plan import Budget, Plan
from onward.repository import Commit, Facts
from onward.training.clock import Clock
from onward.training.counters import Counters
from onward.training.crown import Crown
from onward.training.judging import Scoring
from onward.training.lag import lag_text
from onward.training.learning import Learning
from onward.training.live import LiveState
from onward.training.loaders import Loaders
from onward.training.metrics import Metrics, number
from onward.training.places import Pusher
from onward.training.planning import AskedPlan, Moments
from onward.training.policy import SavePolicy
from onward.training.reporting import Reporter, monotonic_s
from onward.training.saver import Saver
from onward.training.saves import Saves
from onward.training.signals import StopRequests
from onward.training.tracking import Tracking
from onward.training.watching import Watch


class Run:
    """One increment of training at one output. Made by `onward.open`.

    Use it as a context manager, or call `finish` at the end. Every method that saves raises
    `Fenced` once another writer has taken over the output.
    """

    def __init__(
        self,
        *,
        objects: Mapping[str, Any],
        framework: Framework,
        saver: Saver,
        verb: str,
        increment: int,
        loaders: Loaders,
        learning: Learning,
        policy: SavePolicy,
        reporter: Reporter,
        about: Mapping[str, Any],
        origin: Mapping[str, str] | None = None,
        on_save_failure: str = "warn",
        pusher: Pusher | None = None,
        crown: Crown | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self.verb = verb
        """How this run began: `fresh`, `resume`, `continue` or `branch`."""
        self.increment = increment
        """Which round of learning this is, from 1."""
        self._objects = dict(objects)
        self._framework = framework
        self._saves = Saves(
            saver, policy, take=self._take, tell=self._tell, say=reporter.say,
            on_failure=on_save_failure,
        )  # fmt: skip
        self._loaders = loaders
        self._learning = learning
        self.counters = Counters(loaders, learning)
        self._reporter = reporter
        self._about = dict(about)
        self._origin = dict(origin) if origin else None
        self._pusher = pusher
        self._crown = crown
        self._tracking = tracking or Tracking()
        self._signals = StopRequests()
        self._shown_epoch = 0  # for people, to whom an epoch's end still belongs to it
        self._metrics = Metrics()
        self._watch = Watch(framework, self._objects)
        self.live = LiveState(framework, self._objects, self.counters, say=reporter.say)
        """What is saved of all this."""
        self._between_steps = True
        self._in_epoch = False
        self._next_report_s = 0.0
        self._to_reserve = False
        self._open = True
        self._finished = False
        self._clock = Clock()

    # The loop.

    @property
    def global_step(self) -> int:
        """Optimizer steps over the model's whole life."""
        return self.counters.global_step

    @property
    def increment_step(self) -> int:
        """Optimizer steps in this increment."""
        return self.counters.increment_step

    @property
    def checkpoint(self) -> str | None:
        """Id of the newest checkpoint of this run, or of the one that it began from."""
        return self._saves.saver.newest

    @property
    def epoch(self) -> int:
        """The epoch of this increment that is being trained, from 0."""
        return self.counters.epoch

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop; long work between steps may look here and return."""
        return bool(self._signals.requested)

    def loader(self, dataset: Any, *, batch_size: int = 1, name: str = "", **options: Any) -> Any:
        """Batches of what is new in `dataset`, with old samples mixed in from increment 2 on.

        `dataset` has `__getitem__` and `__len__`; with MindSpore it may also be a pipeline without
        a batch over a source that takes a sampler (`MnistDataset(…).map(…)`). Takes `num_workers`,
        `collate_fn`, `drop_last`, `shuffle`, for PyTorch all options of `DataLoader`, and these:

        - `ids`: what items are known by, where the dataset does not only grow at its end: one id
          per item, a function of the index, or `"content"`. A source (`onward.data.Folder`,
          `Table`) knows by itself.
        - `replay`: a fixed number of old samples per new one, instead of what the strategy mixes.
        - `labels`: the class of each item (an array, or a function of the index), for memories
          balanced by class; by default the dataset's own `labels` or `targets`.
        - `holdout`: the share of what is new to freeze as this increment's holdout, never learned.
        - `only_new`: the dataset holds only what is new; what is missing in it is not withdrawn.
        - `raw`: a function of the index that gives what a replay memory keeps of an item, if not
          what the dataset gives (which may be augmented).

        Resumes at the next batch without loading the ones before.

        Raises `NothingNew` when a finished model has learned all of it, `DataChanged` when the
        data of an unfinished increment is gone or changed, `UsageError` for a name used twice.
        """
        try:
            return self._loaders.own(dataset, batch_size=batch_size, name=name, **options)
        except NothingNew as error:
            self._reporter.tell(nothing_new=error.sentence())
            self.close()
            raise

    def batches(self, loader: Any, *, name: str = "") -> Any:
        """The user's own loader, resuming at the right batch with the right randomness.

        For PyTorch a `DataLoader` is rebuilt around its sampler so that batches already consumed
        are not loaded again; a `StatefulDataLoader` uses its own state; an iterable dataset is
        replayed up to its position. For MindSpore a pipeline of `mindspore.dataset` is told which
        items to give; one that cannot be is replayed, and says why.
        """
        return self._loaders.users(loader, name=name)

    def plan(
        self,
        budget: int | float | str | Budget,
        *,
        retrain_epochs: float | None = None,
        schedule: bool | None = None,
        warmup: float = 0.05,
        final: float = 0.0,
        moments: Moments = "kept",
        accumulate: int = 1,
    ) -> Plan:
        """Plans this increment: how much it may train, of what mix, at which learning rate.

        `budget` is this increment's own: epochs (a number), `"500 steps"`, `"10 min"`, or
        `"0.2 x retrain"`, a share of training from scratch on all the data for `retrain_epochs`
        (by default as many epochs as the first increment was planned for). The first increment is
        that training from scratch: a share of a retrain is all of it there.

        With `schedule`, the learning rate is warmed up from near zero to what the optimizer was
        built with over the first `warmup` of the budget, and decayed to `final` times that over the
        rest (half that peak where nothing old is mixed in). By default it is, unless the script
        gave a scheduler of its own. `moments="reset"` lets the optimizer begin anew. `accumulate`
        is how many batches make an optimizer step.

        Call it after `run.loader`, then loop over `run.epochs()`. Raises `EmptyBudget` where zero
        steps, or only steps at a learning rate of zero, would be trained.
        """
        if schedule is None:
            schedule = not self._framework.has_schedule(self._objects)
        asked = AskedPlan(
            Budget.of(budget), retrain_epochs, warmup=warmup, final=final, moments=moments,
            schedule=schedule, accumulate=accumulate,
        )  # fmt: skip
        self._begin_learning(asked)
        plan = self._learning.planner.plan
        if plan is None:
            raise UsageError(
                "there is nothing to plan for",
                do="call run.loader (or run.batches) before run.plan",
            )
        for sentence in plan.sentences():
            self._reporter.say(sentence)
        return plan

    def budget_for(self, plan: int | float | str | Budget | None) -> Any:
        """The budget that the job asks for, else `plan`. For trainers that own the loop."""
        return self._learning.wishes.budget_of(plan, say=self._reporter.say)

    def epochs(self, budget: int | float | str | None = None) -> Iterator[int]:
        """Yields the epochs of this increment that are still to train, from 0.

        The budget is this increment's own, as in `plan`, which may have been told it already: a
        finished model that continues trains as much again. The loader ends early, within the last
        epoch, where the budget is spent. Raises `EmptyBudget` for one that trains nothing.
        """
        if self._learning.planner.plan is None:
            budget = self.budget_for(budget)
            if budget is not None:
                self._begin_learning(AskedPlan(Budget.of(budget)))
        left = self._learning.epochs_left(
            budget, first=self.epoch, steps=lambda: self.increment_step
        )
        if self.verb == "resume" and self._learning.is_over(self.epoch, self.increment_step):
            self._reporter.say(f"the budget of {self._learning.budget} is spent already")
        for epoch in left:
            self.enter_epoch(epoch)
            yield epoch
            self.leave_epoch()

    def enter_epoch(self, epoch: int) -> None:
        """The loop begins an epoch of this increment, from 0, or goes on within it.

        For trainers that own the loop of epochs; a script's own loop takes them from `epochs`.
        """
        self._loaders.begin_epoch(epoch)
        if not self._loaders.mid_epoch():
            self.live.apply_randomness()
        self._in_epoch = True
        self._shown_epoch = epoch

    def leave_epoch(self, *, last: bool = False) -> None:
        """The loop has ended the epoch that it entered: saves if that is due, obeys SIGTERM.

        After the `last` one it does neither, because `finish` follows.
        """
        self._in_epoch = False
        # With gradients accumulated beyond the epoch's end, the next step's save is the first
        # that can hold all of the state.
        settled = self._between_steps and self._loaders.settled()
        self.counters.epoch = following = self._shown_epoch + 1
        self._loaders.end_epoch(following)
        if last:
            return
        if settled and (self._saves.policy.every_epoch or self._saves.wanted):
            # The next step is in the next epoch: this save waits for its turn.
            self._saves.saver.let_pass()
            self._saves.settle()
            self._saves.soon(self._saves.wanted or f"end of epoch {following}")
        self._obey_signal()

    def step(self, **metrics: Any) -> None:
        """One optimizer step is done: counts, records metrics, saves when due, obeys SIGTERM.

        Call it after `optimizer.step()`. With gradient accumulation it may be called after every
        micro-batch as well: only calls that follow an optimizer step count.
        Raises `Stopped` once the state is saved after a request to stop.
        """
        if metrics:
            self._metrics.remember(metrics)
        if self._watch.sees_steps and not self._watch.take_step():
            self._between_steps = False
            return
        self._between_steps = True
        self.counters.global_step += 1
        self.counters.increment_step += 1
        self.live.after_step()
        self._loaders.consumed()
        self._watch.look_at_rates()
        self._tracking.step(self.global_step, metrics)
        self._learning.after_step(steps=self.increment_step, metrics=self._metrics.latest)
        self._saves.settle()
        if self._to_reserve:  # only now the optimizer has its state
            self._to_reserve = False
            self._saves.saver.reserve(self.live.capture())
        now_s = monotonic_s()
        reason = self._saves.wanted or self._saves.policy.due(step=self.global_step, now_s=now_s)
        if self._signals.requested:
            self._stop()
        elif reason:
            self._saves.soon(reason)
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + self._reporter.interval_s
            self._report()

    def log(self, **metrics: Any) -> None:
        """Records metrics (numbers) for the next checkpoint, and tells them to trackers."""
        self._metrics.remember(metrics)
        self._tracking.log(self.global_step, metrics)

    def penalty(self, outputs: Any) -> Any:
        """What the strategy adds to the loss of the batch that the loader gave last: a scalar.

        `outputs` is what the model gave for that batch, row by row. Zero for a strategy that only
        chooses what is in the batch. Raises `UsageError` outside of a batch of `run.loader`.
        """
        return self._learning.learner.penalty(self._loaders.teaching(), outputs)

    def scoring(
        self,
        function: Callable[[Any], Any],
        *,
        metric: str = "accuracy",
        higher_is_better: bool = True,
        batch_size: int = 256,
    ) -> None:
        """Says how items of holdouts are scored: `function(batch)` gives one outcome per row.

        Bool (right or wrong) or float (a score, or a loss with `higher_is_better=False`), as an
        array or tensor of shape [rows]. It is called with the models in evaluation mode, without
        gradients: for what this increment freezes before it trains, and for every holdout when it
        finishes.
        """
        self._learning.judging.scoring = Scoring(function, metric, higher_is_better, batch_size)

    def holdout(
        self,
        name: str,
        dataset: Any,
        *,
        ids: Any = None,
        clusters: Any = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        """Freezes a dataset as a holdout: every later increment is scored on it, none learns it.

        Give it again, unchanged, in every run. `ids` as for `run.loader`, by default the content.
        `clusters` (one whole number per item) says which items belong together, such as those of
        one user. Call `run.scoring` first.

        Raises `Leak` with the ids where the model learns some of it, `DataChanged` where the items
        are not those that were frozen.
        """
        self._loaders.hold_out(name, dataset, ids=ids, clusters=clusters, collate_fn=collate_fn)

    def evaluate(
        self, function: Callable[[], Mapping[str, Any]], *, name: str = ""
    ) -> dict[str, float]:
        """Calls `function`, records the numbers it returns, and returns them.

        Models are in evaluation mode without gradients meanwhile, and the random generators are
        as before afterwards, so that how often a run is evaluated does not change what it learns.
        """
        randomness = self._framework.capture_randomness()
        try:
            with self._framework.evaluating(self._objects):
                found = function()
        finally:
            self._framework.restore_randomness(randomness)
        prefix = f"{name}_" if name else ""
        values = {prefix + key: number(value, key) for key, value in found.items()}
        self.log(**values)
        return values

    # Saving.

    def save(self, reason: str = "asked for", *, wait: bool = True) -> str | None:
        """Saves the state as it is now and returns the checkpoint's id.

        With `wait` it exists, durable, when this returns. Without, it is stored behind the loop's
        back; if another save is on its way, this one follows after the first step that finds it
        done, and None is returned.

        A checkpoint holds the state after an optimizer step or at an epoch's end, where the loop
        can take it up again exactly. Called elsewhere (among accumulated gradients, or after the
        last batch of an epoch) it saves at the next such place instead, and returns None.
        """
        if wait:
            self._saves.settle(wait=True)
        if self._saves.saver.busy or not self._at_a_place_to_save():
            self._saves.wanted = reason
            return None
        return self._saves.now(reason) if wait else self._saves.start(reason)

    def wait(self) -> None:
        """Waits until the save that is on its way is durable, or says how it failed."""
        self._saves.settle(wait=True)

    def finish(self, **metrics: Any) -> Verdict | None:
        """Ends the increment: saves it as finished, waits until everything is stored and pushed.

        Memories are filled, every holdout is scored, and the candidate is compared with the
        champion, whose place it takes if it may (the first one always); the verdict is returned,
        and stands in the log. Raises `EmptyBudget` if nothing
        was trained at a learning rate above zero.
        """
        if self._finished:
            return self._learning.judging.verdict
        if metrics:
            self.log(**metrics)
        if self.increment_step == 0:
            raise EmptyBudget(
                f"increment {self.increment} trained zero steps",
                why="run.step() was never called after an optimizer step",
                do="check the budget and that the loader yields batches",
            )
        if self._watch.learned_nothing:
            raise EmptyBudget(
                f"increment {self.increment} trained at a learning rate of zero",
                do="build the scheduler for this increment's own steps",
            )
        self._look_back()
        self._tracking.scored(self.global_step, self._learning.judging.row())
        checkpoint = self._saves.now("finished", finished=True)
        self._finished = True
        self._tracking.status = "finished"
        judging = self._learning.judging
        if self._crown is not None and judging.scored:
            self._crown.decide(checkpoint, judging.verdict)
        self.close()
        if self._crown is not None:
            self._crown.move()
        return judging.verdict

    def close(self) -> None:
        """Lets go of signals and hooks; waits for the save on its way and the last push.

        Does not save.
        """
        if not self._open:
            return
        self._open = False
        self._signals.remove()
        self._watch.end()
        with ExitStack() as stack:  # each of these, whatever became of the one before
            stack.callback(self._reporter.close)
            stack.callback(self._tracking.end)
            if self._pusher is not None:
                stack.callback(self._pusher.finish)
            stack.callback(self._saves.saver.close)
            stack.callback(self._loaders.close)
            self._saves.settle(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
            return
        if not isinstance(error, SystemExit | KeyboardInterrupt):
            self._tracking.status = "failed"
        try:
            self.close()
        except OnwardError as second:
            self._reporter.say(str(second))  # the first error is the one to raise

    # How opening fills it.

    def begin(self) -> None:
        """Starts listening: signals, optimizers, the save interval."""
        self._signals.install()
        self._watch.begin(self._saves.saver.let_change)
        if not self._watch.sees_beginnings:
            self._saves.saver.at_once = True  # nobody would wait before parameters change
        self.live.begin()
        self._saves.policy.saved(step=self.global_step, now_s=monotonic_s())
        self._loaders.on_first_batch = self.live.apply_randomness
        self._loaders.on_wait = self._on_wait
        self._loaders.on_start = lambda: self._begin_learning(None)
        self._loaders.spent = lambda: self._learning.spent(self.increment_step)
        self._learning.elapsed_s = self._clock.elapsed_s
        self._learning.say = self._reporter.say
        if self._saves.saver.newest is None:
            self._to_reserve = True
        else:
            # What was restored is staged before training changes it, but no sooner: who only looks
            # at a model needs no second copy of it.
            self._watch.before_first_step(self._prime)
        if self._pusher is not None:
            self._pusher.start()

    def began_from(self, checkpoint: str) -> None:
        """The next checkpoint is a child of this one, which was just restored."""
        self._saves.saver.newest = checkpoint

    def branched(self, about: Mapping[str, Any]) -> None:
        """Records what was taken from where this output branched off."""
        self._about["branch"] = dict(about)

    def go_on_from(self, about: Mapping[str, Any]) -> None:
        """Takes up what the resumed increment told with its checkpoint."""
        self._clock.before_s = float(about.get("seconds", 0.0))
        self._learning.go_on_from(about.get("learning") or {})
        self._tracking.go_on_from(about.get("tracking") or {})

    # Details.

    def _begin_learning(self, asked: AskedPlan | None) -> None:
        with self._clock.stopped():
            self._learning.begin(asked, batches=self._loaders.users_batches())
        if asked is not None and asked.moments == "reset":
            self._watch.recount()
        self._learning.follow(self.increment_step)

    def _look_back(self) -> None:
        randomness = self._framework.capture_randomness()
        with self._clock.stopped():
            verdict = self._learning.finish()
            self._loaders.learn()
        self._framework.restore_randomness(randomness)
        for line in verdict.lines() if verdict is not None else ():
            self._reporter.say(line)

    def _prime(self) -> None:
        self._saves.saver.prime(self.live.learned())

    def _take(self, reason: str, finished: bool) -> tuple[dict[str, Any], Facts]:
        if self._pusher is not None and self._pusher.failure is not None:
            raise self._pusher.failure
        return self.live.capture(), self._facts(reason, finished)

    def _tell(self, commit: Commit) -> None:
        self._report(saved=commit.checkpoint, reason=commit.reason, step=commit.step)
        self._tracking.saved(commit, lambda: self._learning.about(steps=self.increment_step))

    def _facts(self, reason: str, finished: bool) -> Facts:
        about = {
            **self._about,
            "data": self._loaders.about(),
            "learning": self._learning.about(steps=self.increment_step),
            "seconds": round(self._clock.elapsed_s(), 3),
            **self._tracking.about(self.global_step),
        }
        if not finished:
            about.pop(DATA_FILES, None)  # what comes next is compared with what was finished
        saving = self._saves.policy.about()
        return Facts(
            step=self.global_step,
            epoch=self.counters.epochs_before + self.epoch,
            increment=self.increment,
            parent=None,  # the saver knows
            finished=finished,
            reason=reason,
            verb=self.verb,
            framework=self._framework.name,
            framework_version=self._framework.version(),
            origin=self._origin,
            about={**about, "saving": saving} if saving else about,
            metrics=self._metrics.numbers(),
            scores=self._learning.judging.row() if finished else None,
        )

    def _stop(self) -> None:
        name = self._signals.requested
        checkpoint = self._saves.now(name)
        code = self._signals.exit_code
        self._reporter.say(
            f"{name}: saved step {self.global_step} as {checkpoint} and stopping; "
            "run the same command again to go on"
        )
        self.close()
        raise Stopped(f"stopped by {name} at step {self.global_step}", code=code)

    def _at_a_place_to_save(self) -> bool:
        """Whether a loop that goes on from here repeats nothing and leaves nothing out."""
        learned = self._between_steps and self._loaders.settled()
        return learned and (not self._in_epoch or self._loaders.within_batches())

    def _obey_signal(self) -> None:
        if self._signals.requested and self._between_steps and self.increment_step:
            self._stop()

    def _on_wait(self) -> None:
        """Called by loaders before a batch is handed out, while nothing is half done."""
        if self._signals.requested and self._at_a_place_to_save():
            self._obey_signal()

    def _report(self, **more: Any) -> None:
        batch, batches = self._loaders.place()
        behind = lag_text(self._pusher.lag()) if self._pusher is not None else ""
        facts: dict[str, Any] = {
            "step": self.global_step, "epoch": self._shown_epoch, "batch": batch,
            "batches": batches, "metrics": self._metrics.numbers(),
        }  # fmt: skip
        if behind:
            facts["behind"] = behind
        self._reporter.progress(**{**facts, **more})
