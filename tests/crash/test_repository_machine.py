"""Saves, aliases, drops, take-overs and faults in any order, against a model of a few lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from onward.errors import Fenced, Indeterminate, OnwardError, Unreachable, UsageError
from onward.repository import History, Repository, Writer, open_repository
from onward.repository.collecting import Collector, Reach
from onward.repository.leftovers import Leftovers
from onward.repository.repacking import Repacker
from onward.repository.retention import Retention, decide
from onward.stores import Died, Fault, FaultPlan, Faulty, MemoryStore, dies
from onward.stores.fault import Answer
from tests.repository.outputs import (
    Meanwhile,
    Picture,
    facts,
    going_on,
    leaf,
    look,
    new_output,
    opened,
    plain,
    scaled,
)

_FAULTS = st.none() | st.tuples(
    st.integers(1, 9), st.sampled_from(["dies", "fails"]), st.sampled_from(["before", "after"])
)
_NAMES = st.sampled_from(["champion", "best-so-far", "kept"])


class _Switch(FaultPlan):
    """Follows `plan` while there is one."""

    plan: FaultPlan | None = None

    def perform(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        return call() if self.plan is None else self.plan.perform(verb, key, call)


def _state(versions: list[int]) -> dict[str, Any]:
    # Of very different lengths, so that a pack of all is mostly dead once the longest changed.
    tensors = {f"t{n}": leaf(np.full(2 * 6**n, version)) for n, version in enumerate(versions)}
    return {"model": tensors, "versions": list(versions)}


class Output(RuleBasedStateMachine):
    """One output, one writer at a time, readers and people who drop and name at any time.

    The model: what is live by step, which step each name means, and how many claims there were.
    """

    @initialize()
    def begin(self) -> None:
        self.healthy = MemoryStore()
        self.switch = _Switch()
        self.store = Faulty(self.healthy, self.switch)
        new_output(self.healthy)
        self.model = Picture()
        self.versions = [0, 0, 0]
        self.versions_at: dict[int, list[int]] = {}
        self.step = 0
        self.zombies: list[Writer] = []
        self.somebody = opened(self.store)  # who never claims
        self._claim()

    def _claim(self) -> None:
        self.repository: Repository = opened(self.store)
        self.writer: Writer = self.repository.claim("a writer")
        self.model = Picture(self.model.checkpoints, self.model.aliases, self.model.generation + 1)

    def _attempt(self, fault: Any, act: Callable[[], object], changed: Picture) -> None:
        """Does `act` under a fault; the output is then as before, or as `changed`."""
        outcome: BaseException | None = None
        if fault is not None:
            at, kind, when = fault
            self.switch.plan = FaultPlan(
                dies(at, when=when) if kind == "dies" else Fault(at, when, error=_unreachable)
            )
        try:
            act()
        except (Died, OnwardError) as error:
            outcome = error
        self.switch.plan = None
        found = look(self.healthy)
        if outcome is None:
            assert found == changed
        elif fault is None:
            raise outcome
        else:
            assert found in (self.model, changed), outcome
            assert isinstance(outcome, Died | Unreachable | Indeterminate)
        self.model = found
        if isinstance(outcome, Died):
            self.repository = opened(self.store)
            self.somebody = opened(self.store)
            self.writer = going_on(self.repository)

    @rule(changed=st.sets(st.integers(0, 2)), fault=_FAULTS)
    def save(self, changed: set[int], fault: Any) -> None:
        self.step += 1
        for number in changed:
            self.versions[number] = self.step
        tree, step = _state(self.versions), self.step
        self.versions_at[step] = list(self.versions)
        parent = self.repository.refresh().latest()
        self._attempt(
            fault,
            lambda: self.writer.commit(tree, facts(step, parent)),
            self.model.and_checkpoint(step, tree),
        )

    @precondition(lambda self: self.model.checkpoints)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        """An older checkpoint is restored: the next save builds on it."""
        commit = data.draw(st.sampled_from(self.repository.refresh().live()))
        self.writer.base_on(self.repository.manifest(commit))
        self.versions = list(self.versions_at[commit.step])

    @precondition(lambda self: self.model.checkpoints)
    @rule(name=_NAMES, data=st.data(), fault=_FAULTS)
    def name(self, name: str, data: st.DataObject, fault: Any) -> None:
        commit = data.draw(st.sampled_from(self.somebody.refresh().live()))
        aliases = {**self.model.aliases, name: commit.step}
        self._attempt(
            fault,
            lambda: self.somebody.set_alias(name, commit.checkpoint),
            Picture(self.model.checkpoints, aliases, self.model.generation),
        )

    @precondition(lambda self: self.model.aliases)
    @rule(data=st.data())
    def remove_a_name(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.aliases)))
        aliases = {key: step for key, step in self.model.aliases.items() if key != name}
        self._attempt(
            None,
            lambda: self.somebody.set_alias(name, None),
            Picture(self.model.checkpoints, aliases, self.model.generation),
        )

    @precondition(lambda self: self.model.checkpoints)
    @rule(data=st.data(), fault=_FAULTS)
    def drop(self, data: st.DataObject, fault: Any) -> None:
        live = self.somebody.refresh().live()
        chosen = data.draw(st.lists(st.sampled_from(live), min_size=1, unique_by=id))
        steps = {commit.step for commit in chosen}
        ids = [commit.checkpoint for commit in chosen]
        protected = {*self.model.aliases.values(), max(self.model.checkpoints)}
        if steps & protected or self.somebody.history.pins.intersection(ids):
            with pytest.raises(UsageError):
                self.somebody.drop(ids)
            return
        changed = self.model
        for step in steps:
            changed = changed.without(step)
        self._attempt(fault, lambda: self.somebody.drop(ids), changed)

    @precondition(lambda self: self.model.checkpoints)
    @rule(data=st.data(), fault=_FAULTS)
    def pin(self, data: st.DataObject, fault: Any) -> None:
        """A pin shows nowhere but in what a prune and a drop leave alone."""
        commit = data.draw(st.sampled_from(self.somebody.refresh().live()))
        pinned = commit.checkpoint in self.somebody.history.pins
        act = self.somebody.unpin if pinned else self.somebody.pin
        self._attempt(fault, lambda: act(commit.checkpoint), self.model)

    @rule(
        keep_last=st.none() | st.integers(1, 3),
        keep_every=st.none() | st.integers(1, 4),
        fault=_FAULTS,
    )
    def prune(self, keep_last: int | None, keep_every: int | None, fault: Any) -> None:
        """What it forgets is decided before; the newest, names and pins are never among it."""
        rules = Retention(keep_last=keep_last, keep_every=keep_every)
        history = self.somebody.refresh()
        changed = self.model
        for id_ in decide(history, rules).goes:
            assert id_ not in {*history.aliases.values(), *history.pins}
            changed = changed.without(history.commits[id_].step)
        self._attempt(fault, lambda: Collector(self.somebody).prune(rules), changed)

    @rule(fault=_FAULTS, grace_s=st.sampled_from([0.0, 3600.0]))
    def sweep(self, fault: Any, grace_s: float) -> None:
        collector = Collector(self.somebody)
        now_s = time.time()
        self._attempt(fault, lambda: collector.sweep(grace_s=grace_s, now_s=now_s), self.model)

    @rule(fault=_FAULTS)
    def sweep_leftovers(self, fault: Any) -> None:
        leftovers = Leftovers(Collector(self.somebody))
        self._attempt(fault, lambda: leftovers.sweep(), self.model)

    @rule()
    def leave_a_pack_mostly_dead(self) -> None:
        """The longest tensor changes, and the checkpoint that had its old bytes is forgotten."""
        for changed in ({0, 1, 2}, {2}):
            self.save(changed, None)
        self.prune(1, None, None)

    @rule(fault=_FAULTS)
    def repack(self, fault: Any) -> None:
        """By somebody who claimed nothing, while the writer goes on reusing what it knows."""
        self._attempt(fault, lambda: Repacker(Collector(self.somebody)).repack(), self.model)

    @precondition(lambda self: self.model.checkpoints)
    @rule(what=st.sampled_from(["repack", "prune", "leftovers"]), collector_first=st.booleans())
    def save_while_others_collect(self, what: str, collector_first: bool) -> None:
        """One acts between what the other has stored and its record."""
        self.leave_a_pack_mostly_dead()
        self.step += 1
        self.versions[0] = self.step
        tree, step = _state(self.versions), self.step
        self.versions_at[step] = list(self.versions)
        parent = self.repository.refresh().latest()
        inner = Meanwhile(self.store)
        others = opened(inner if collector_first else self.healthy)

        def save() -> None:
            self.writer.commit(tree, facts(step, parent))

        def collect() -> None:
            collector = Collector(others)
            match what:
                case "repack":
                    Repacker(collector).repack()
                case "prune":
                    collector.prune(Retention(keep_last=2, keep_finished=False))
                case "leftovers":
                    Leftovers(collector).sweep()
                    Leftovers(collector).sweep()
            collector.sweep(grace_s=0, now_s=0)

        if collector_first:
            inner.acts.append(save)
            collect()
            if inner.acts:  # it had nothing to record
                save()
        else:
            inner.acts.append(collect)
            self.writer.store = self.writer.log.store = inner
            save()
            self.writer.store = self.writer.log.store = self.store
        found = look(self.healthy)
        assert found.checkpoints[step] == plain(tree)
        if what != "prune":
            assert found == self.model.and_checkpoint(step, tree)
        assert found.aliases == self.model.aliases
        self.model = found

    @rule()
    def take_over(self) -> None:
        self.zombies = [*self.zombies[-1:], self.writer]
        self._claim()

    @precondition(lambda self: self.zombies)
    @rule()
    def wake_a_zombie(self) -> None:
        with pytest.raises(Fenced, match="a writer"):
            self.zombies[0].commit(_state([-1, -1, -1]), facts(10_000))

    @invariant()
    def nothing_is_lost(self) -> None:
        """Everything live is whole (`look` reads every byte), names and the newest are right."""
        assert look(self.healthy) == self.model
        history = open_repository(self.healthy).history
        live = {commit.checkpoint for commit in history.live()}
        assert {*history.aliases.values(), *history.pins} <= live
        latest = history.latest()
        assert (latest.step if latest else None) == max(self.model.checkpoints, default=None)


def _unreachable() -> Unreachable:
    return Unreachable("on purpose")


_SETTINGS = settings(
    max_examples=scaled(12, 2000),
    stateful_step_count=scaled(20, 50),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestOutput = Output.TestCase
TestOutput.settings = _SETTINGS


def test_drop_that_forgets_what_others_need_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above has teeth: a drop that condemns shared packs loses a checkpoint."""

    def forgetful(self: Reach, history: History, wanted: list[str]) -> dict[str, int]:
        gone = self.of([history.commits[id_] for id_ in wanted])
        return {pack: size for packs in gone.values() for pack, size in packs.items()}

    monkeypatch.setattr(Reach, "only", forgetful)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Output, settings=settings(_SETTINGS, phases=[Phase.generate]))
