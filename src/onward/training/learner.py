"""A strategy at work: begins an increment, mixes batches, adds to the loss, looks back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onward.data.order import Indices
from onward.errors import Mismatch, NewerFormat, UsageError
from onward.learning.hooks import (
    Counts,
    Hook,
    Observer,
    Penalty,
    Reading,
    Sampler,
    Setting,
    Transform,
)
from onward.learning.labels import check_labels
from onward.learning.maths import Maths
from onward.learning.memory import Memory
from onward.learning.replay import UniformReplay
from onward.training.lessons import LoaderLessons, as_batch
from onward.training.remembered import Remembered

_VERSION = 1


class Learner:
    """Calls the hooks of a strategy where `onward.learning.hooks` says, each at most once.

    `new_increment` says that what is loaded belongs to the increment before this one.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        *,
        framework: str,
        model: Any,
        reading: Reading,
        increment: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.hooks = list(hooks)
        self.sampler = next((h for h in self.hooks if isinstance(h, Sampler)), UniformReplay())
        if self.sampler not in self.hooks:
            self.hooks.append(self.sampler)
        self.reading = reading
        self.fresh: Mapping[str, Any] = {}
        """The weights that the script initialised, where a transform needs them."""
        self.begun = False
        """Whether this increment has begun, in this process or an earlier one."""
        self.share: float | None = None
        self._framework = framework
        self._model = model
        self._increment = increment
        self._seed = seed
        self._say = say
        self._penalties = [h for h in self.hooks if isinstance(h, Penalty)]
        self._observers = [h for h in self.hooks if isinstance(h, Observer)]
        self._ready = False
        self._loader: Any = None
        self._lessons: LoaderLessons | None = None
        self._maths: Maths | None = None

    # What it consists of.

    @property
    def maths(self) -> Maths:
        """The framework's arithmetic, imported when a hook first needs it."""
        if self._maths is None:
            module = importlib.import_module(f"onward.learning.{self._framework}")
            self._maths = module.maths
        assert self._maths is not None
        return self._maths

    @property
    def memory(self) -> Memory | None:
        """The replay memory, where the strategy has one."""
        return self.sampler.memory

    @property
    def needs_fresh_weights(self) -> bool:
        """Whether some hook mixes in, or starts again from, weights that learned nothing."""
        return any(isinstance(h, Transform) for h in self.hooks)

    @property
    def lessons(self) -> LoaderLessons | None:
        """What the increment is about; None where the script's own loaders are used."""
        return self._lessons

    def describe(self) -> str:
        """The strategy in a few words."""
        return " + ".join(h.describe() for h in self.hooks)

    # What it does, in order.

    def teach(self, lessons: LoaderLessons) -> None:
        """These lessons are what the increment is about."""
        if self._lessons is not None:
            if len(self.hooks) > 1 or self.memory is not None:
                raise UsageError(
                    "there are two loaders to learn from",
                    why=f"a strategy ({self.describe()}) is about one",
                    do="put the datasets together into one, or use the default strategy",
                )
            return
        self._lessons, self._loader = lessons, lessons.loader
        if self.memory is not None:
            self._loader.attach(Remembered(self.memory, self.maths))

    def forget(self, lessons: LoaderLessons, removed: Any) -> int:
        """Removes withdrawn items, by their 16 bytes, from the memory; returns how many it had."""
        return self.memory.remove(removed) if self.memory is not None and len(removed) else 0

    def get_ready(self) -> None:
        """Everything is restored and declared. Transforms and observers see an increment begin."""
        if self._ready:
            return
        self._ready = True
        self._check_head()
        if len(self.hooks) == 1 and type(self.sampler) is UniformReplay:
            self.begun = True  # nobody to tell, and no arithmetic to import
            return
        if self._penalties:
            self.maths.check_penalties()
        setting = Setting(self.maths, self._model, self.reading, self._increment, self._seed)
        for hook in self.hooks:
            hook.begin(setting)
        if self.begun:
            return
        for hook in self.hooks:
            if isinstance(hook, Transform) and self._increment > 1:
                hook.at_start(self.fresh)
        if self._lessons is not None:
            for observer in self._observers:
                observer.before_increment(self._lessons)
        self.begun = True

    def _check_head(self) -> None:
        """Raises `UnknownLabel` where a new item's label is beyond the outputs of the model.

        The loop's criterion would only say that some index is out of bounds, in the middle of it.
        """
        lessons = self._lessons
        if lessons is None or lessons.labels is None or self._model is None:
            return
        batch = next(iter(lessons.batches(lessons.new[:1], batch_size=1)))
        try:
            outputs = self.maths.outputs(self._model, batch.inputs)
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, UsageError):
            return  # the loop calls its model in another way, which only it knows
        if len(outputs.shape) == 2 and outputs.shape[1] > 1:
            check_labels(lessons.labels[lessons.new], int(outputs.shape[1]))

    def counts(self, known: int, *, draws: int | None) -> Counts:
        """What there is to mix; `draws` is how many rows the budget has."""
        assert self._lessons is not None
        return Counts(len(self._lessons.new), len(self._old()), known, draws)

    def draw_from_memory(self) -> None:
        """The loader's old items are the slots of the memory, which makes its epochs longer."""
        if self.memory is not None:
            self._loader.mix(self._old(), 1.0)  # the share is decided when the budget is known

    def mix(self, counts: Counts, *, share: float | None = None) -> float:
        """Decides what share of a batch is new, once for all of an increment.

        `share` is what the script asks for, if it does not leave that to the strategy.
        """
        if self.share is None:
            self.share = self.sampler.share(counts) if share is None else share
        if self._increment > 1 or self.memory is not None:
            self._loader.mix(self._old(), self.share)
        return self.share

    def penalty(self, loader: Any, outputs: Any) -> Any:
        """The sum of all penalties for the batch that `loader` handed out last."""
        if not self._penalties:
            return 0.0
        batch = as_batch(loader.batch, self.reading, rows=loader.rows, first_slot=loader.first_slot)
        shape = getattr(outputs, "shape", None)
        if shape is not None and tuple(shape[:1]) != (batch.size,):
            # One row would be broadcast over all, and be a wrong number instead of an error.
            raise UsageError(
                f"the outputs have shape {list(shape)}, and the batch has {batch.size} rows",
                why="a penalty compares them row by row",
                do="give run.penalty what the model gave for the whole batch, rows first",
            )
        total: Any = 0.0
        for hook in self._penalties:
            total = total + hook.penalty(outputs, batch)
        return total

    def after_step(self) -> None:
        for observer in self._observers:
            observer.after_step()

    def look_back(self, met: Indices | None) -> None:
        """All steps are made: the observers see the items that were met."""
        lessons = self._lessons
        if lessons is None:
            return
        lessons = lessons if met is None else lessons.only(lessons.new[met])
        for observer in self._observers:
            observer.after_increment(lessons)

    # Its state.

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "begun": self.begun,
            "share": self.share,
            "hooks": {hook.name: hook.state_dict() for hook in self.hooks},
        }

    def load_state_dict(self, state: Mapping[str, Any], *, new_increment: bool) -> None:
        """Becomes what `state_dict` returned, at the end of an increment or within one."""
        if state["version"] > _VERSION:
            raise NewerFormat("the strategy's state is newer than this Onward", do="update Onward")
        stored = state["hooks"]
        if not new_increment:
            self.begun, self.share = state["begun"], state["share"]
            self._check_same(stored)
        for hook in self.hooks:
            if hook.name in stored:
                hook.load_state_dict(stored[hook.name])
        gone = [name for name in stored if name not in {hook.name for hook in self.hooks}]
        if gone and any(stored[name] for name in gone):
            self._say(
                f"the strategy has no {', '.join(gone)} any more; what it held is left behind"
            )

    def _check_same(self, stored: Mapping[str, Any]) -> None:
        live = {hook.name for hook in self.hooks}
        differences = [f"{name}: in the checkpoint, not in the strategy" for name in stored
                       if name not in live]  # fmt: skip
        differences += [f"{name}: in the strategy, not in the checkpoint" for name in live
                        if name not in stored]  # fmt: skip
        if differences and self.begun:
            raise Mismatch(
                "the unfinished increment has another strategy",
                differences=sorted(differences),
                why="a resume goes on exactly as it began",
                do="give the strategy that it began with; the next increment may have another",
            )

    def _old(self) -> Indices:
        assert self._lessons is not None
        if self.memory is not None:
            slots = np.asarray(self.memory.slots, np.int64)
            return slots + self._lessons.first_slot
        old: Indices = self._loader.old
        return old
