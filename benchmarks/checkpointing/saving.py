"""Some saves of one training by one library, in one process.

Between two saves the loop trains `STEPS_BETWEEN_SAVES` ordinary steps. After a save, either

*the loop goes on*: the next two steps give the stall, and all steps until the checkpoint is
durable the pace; or *the loop stands still* until it is durable: seconds to durable, CPU seconds.

The first save and the last are followed by training, the others take turns. The first is kept
apart, because libraries reserve their memory and start their processes in it.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.checkpointing import process
from benchmarks.checkpointing.files import stored_bytes
from benchmarks.checkpointing.subjects import Subject
from benchmarks.checkpointing.training import STEPS_BETWEEN_SAVES, Training

STALL_STEPS = 2


@dataclass
class Saved:
    """Seconds and bytes of one process. Lists have an entry per save of their kind."""

    state_bytes: int = 0
    digest: str = ""
    """Of the state at the moment of the last save, before it changed."""
    last: int = 0
    """Number of the last save."""
    step_s: float = 0.0
    """Median of the ordinary steps: nothing is being saved."""
    first_call_s: float = 0.0
    first_stall_s: float = 0.0
    call_s: list[float] = field(default_factory=list)
    """Until the call returned."""
    stall_s: list[float] = field(default_factory=list)
    """The call and the next two steps, less two ordinary steps."""
    lost_s: list[float] = field(default_factory=list)
    """The call and all steps until durable, less as many ordinary steps."""
    pace: list[float] = field(default_factory=list)
    """Steps per second from the call's return until durable, per steps per second without."""
    durable_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    first_bytes: int = 0
    stored_bytes: int = 0
    peak_extra_bytes: int = 0
    """Highest memory while saving above the highest of steps before the library was begun."""


@dataclass
class _Going:
    """One save after which the loop went on."""

    call_s: float
    steps_s: list[float]
    idle_s: float
    """Waiting at the end of the last two steps, if the checkpoint was durable later."""


def measure(subject: Subject, training: Training, saves: int) -> dict[str, Any]:
    """All figures of one process, as plain values."""
    result = Saved(state_bytes=0)
    ordinary: list[float] = []
    goings: list[_Going] = []
    # What training itself takes at most, before the library has taken anything.
    for _ in range(2):
        training.step(nullcontext)
    result.state_bytes = training.size_bytes()
    process.forget_peak()
    training.step(nullcontext)
    before = process.peak_bytes()
    subject.begin()

    def step() -> float:
        started = time.perf_counter()
        training.step(subject.updating)
        return time.perf_counter() - started

    def body() -> None:
        for _ in range(STEPS_BETWEEN_SAVES):
            step()
        for index in range(saves):
            ordinary.extend(step() for _ in range(STEPS_BETWEEN_SAVES))
            last = index == saves - 1
            if last:
                result.digest, result.last = training.digest(), index
            # What is trained while the save is written belongs to the next interval.
            if index == 0 or (saves - 1 - index) % 2 == 0:
                goings.append(_go_on(subject, training, index, step))
            else:
                _stand_still(subject, index, result)
                training.begin_interval(index + 1)
            if index == 0:
                result.first_bytes = stored_bytes(subject.folder)
        result.peak_extra_bytes = process.peak_bytes() - before
        result.stored_bytes = stored_bytes(subject.folder)

    subject.inside(body)
    subject.close()
    _fill(result, statistics.median(ordinary), goings, subject.asynchronous)
    return asdict(result)


def _go_on(subject: Subject, training: Training, index: int, step: Any) -> _Going:
    started = time.perf_counter()
    subject.save(index)
    call_s = time.perf_counter() - started
    training.begin_interval(index + 1)
    steps_s = []
    while len(steps_s) < STALL_STEPS or not subject.done():
        steps_s.append(step())
    waiting = time.perf_counter()
    subject.wait()
    return _Going(call_s, steps_s, time.perf_counter() - waiting)


def _stand_still(subject: Subject, index: int, result: Saved) -> None:
    cpu_s = process.cpu_s()
    started = time.perf_counter()
    subject.save(index)
    result.call_s.append(time.perf_counter() - started)
    subject.wait()
    result.durable_s.append(time.perf_counter() - started)
    result.cpu_s.append(process.cpu_s() - cpu_s)


def _fill(result: Saved, step_s: float, goings: list[_Going], asynchronous: bool) -> None:
    result.step_s = step_s
    for number, going in enumerate(goings):
        stall_s = going.call_s + sum(going.steps_s[:STALL_STEPS]) - STALL_STEPS * step_s
        if number == 0:
            result.first_call_s, result.first_stall_s = going.call_s, stall_s
            continue
        result.call_s.append(going.call_s)
        result.stall_s.append(stall_s)
        trained_s = sum(going.steps_s)
        result.lost_s.append(going.call_s + trained_s - len(going.steps_s) * step_s)
        if asynchronous:
            result.pace.append(len(going.steps_s) * step_s / trained_s)
