"""Replayed logits: the formula, which rows and outputs count, and what is stored when."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import Diverged, UsageError
from onward.learning.logits import LogitReplay
from onward.learning.memory import Memory
from onward.learning.replay import MemoryReplay, NoReplay
from onward.learning.torch import TorchMaths
from tests.learning.loop import Loop
from tests.learning.models import ListedLessons, batch_of, flat, mlp, problem, setting

INPUTS, LABELS = problem()


def filled(items, capacity=8):
    memory = Memory(capacity, policy="class-balanced")
    memory.offer(lessons(memory, items), increment=1)
    return memory


def lessons(memory, items=()):
    return ListedLessons(INPUTS, LABELS, items, remembered=memory)


def begun(model, memory, *, increment=2, alpha=0.5):
    hook = LogitReplay(alpha, memory=memory)
    hook.begin(setting(model, increment=increment))
    return hook


def stored(model, items, capacity=8):
    """A memory with the logits that this model gives."""
    memory = filled(items, capacity)
    begun(model, memory, increment=1).after_increment(lessons(memory))
    return memory


def answers(model, memory, slots):
    samples = [memory.sample(int(slot), tensor=torch.from_numpy)[0] for slot in slots]
    return model(torch.from_numpy(np.stack(samples))).detach()


def test_the_penalty_and_its_gradients_are_those_of_the_formula():
    """alpha · the mean over remembered rows and outputs of (output - stored logit)²."""
    memory = stored(mlp(seed=1), range(20))
    before = answers(mlp(seed=1), memory, [3, 0, 3])
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = batch_of(INPUTS[:5], LABELS[:5], [-1, 3, -1, 0, 3])
    penalty = begun(mlp(), memory).penalty(outputs, batch)
    off = outputs.detach()[[1, 3, 4]] - before
    torch.testing.assert_close(penalty, 0.5 * (off**2).mean())
    penalty.backward()
    wanted = torch.zeros(5, 4)
    wanted[[1, 3, 4]] = 0.5 * 2 * off / 12
    torch.testing.assert_close(outputs.grad, wanted)


def test_outputs_that_did_not_exist_do_not_count():
    """Slots of before and after a growth in one batch: each row is meaned over its own outputs."""
    memory = stored(mlp(2), [0, 1, 4, 5], capacity=4)
    old = {slot: answers(mlp(2), memory, [slot]) for slot in range(4)}
    memory.offer(lessons(memory, [2, 3]), increment=2)
    begun(mlp(3), memory).after_increment(lessons(memory))
    counts = memory.beside("der++").outputs
    renewed, kept = np.flatnonzero(counts == 3), np.flatnonzero(counts == 2)
    assert len(renewed) == len(kept) == 2
    new = answers(mlp(3), memory, renewed)
    outputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = batch_of(INPUTS[:4], LABELS[:4], [*kept, *renewed])
    penalty = begun(mlp(5), memory, alpha=1.0).penalty(outputs, batch)
    first = ((outputs[:2, :2] - torch.cat([old[slot] for slot in kept.tolist()])) ** 2).mean(1)
    second = ((outputs[2:, :3] - new) ** 2).mean(1)
    torch.testing.assert_close(penalty, torch.cat([first, second]).mean())
    penalty.backward()
    assert not outputs.grad[:2, 2:].any()
    assert not outputs.grad[2:, 3:].any()


def test_older_slots_keep_their_logits():
    """They are what the model once gave, not what it gives now."""
    memory = stored(mlp(seed=1), range(20))
    before = memory.beside("der++").read(memory.slots)
    begun(mlp(seed=2), memory).after_increment(lessons(memory))
    assert np.array_equal(memory.beside("der++").read(memory.slots), before)


def test_logits_are_those_of_evaluation_mode():
    """Dropout and batch statistics of the moment have no part in them."""
    model = nn.Sequential(mlp(), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model.train()
    memory = stored(model, range(20))
    model.eval()
    wanted = answers(model, memory, memory.slots).numpy()
    assert np.array_equal(memory.beside("der++").read(memory.slots), wanted)


@pytest.mark.parametrize("slots", [[-1, -1], [0, 1], [-1, 1]])
def test_where_nothing_is_stored_the_penalty_is_zero(slots):
    """The first increment, no row of the memory, or slots that have no logits yet."""
    model = mlp().double()
    memory = filled(range(20))
    penalty = begun(model, memory).penalty(
        model(INPUTS[:2].double()), batch_of(INPUTS[:2], LABELS[:2], slots)
    )
    assert (penalty.item(), penalty.dtype, penalty.shape) == (0, torch.float64, ())


def test_rows_without_logits_do_not_thin_the_mean():
    """It is over the rows that have some."""
    memory = stored(mlp(), range(20))
    memory.beside("der++").clear(np.array([1]))
    outputs = torch.zeros(3, 4)
    both = begun(mlp(), memory).penalty(outputs, batch_of(INPUTS[:3], LABELS[:3], [0, 1, -1]))
    alone = begun(mlp(), memory).penalty(outputs[:2], batch_of(INPUTS[:2], LABELS[:2], [0, -1]))
    torch.testing.assert_close(both, alone)


def test_an_empty_memory_is_no_matter():
    """Nothing to store, nothing to replay."""
    memory = Memory(4)
    begun(mlp(), memory).after_increment(lessons(memory))
    assert memory.beside("der++").width == 0


def test_a_model_that_diverged_is_refused():
    """NaN logits would make every later loss NaN."""
    model = mlp()
    with torch.no_grad():
        model[2].bias[0] = torch.inf
    with pytest.raises(Diverged, match="no finite numbers"):
        stored(model, range(20))


def test_a_head_that_shrank_and_outputs_that_are_no_rows_are_refused():
    """Both say what to do."""
    memory = stored(mlp(), range(20))
    batch = batch_of(INPUTS[:2], LABELS[:2], [0, 1])
    with pytest.raises(UsageError, match="has 3 outputs, and 4 logits"):
        begun(mlp(3), memory).penalty(torch.zeros(2, 3), batch)
    with pytest.raises(UsageError, match="one row for each item"):
        begun(mlp(), memory).penalty(torch.zeros(2, 3, 4), batch)


def test_impossible_options_are_refused():
    """When it is made."""
    with pytest.raises(UsageError, match="alpha"):
        LogitReplay(-1.0, memory=Memory(1))
    with pytest.raises(UsageError, match="has none"):
        LogitReplay(memory=NoReplay())


def test_killed_and_resumed_the_logits_are_the_same_bits():
    """Weights, moments, memory and logits."""
    increments = [[i for i in range(40) if i % 4 in pair] for pair in ((0, 1), (2,), (3,))]

    def hooks():
        sampler = MemoryReplay(Memory(8, policy="class-balanced"), share=0.5)
        return [sampler, LogitReplay(memory=sampler)]

    def final(kills):
        loop = Loop(hooks, INPUTS, LABELS, increments, steps=6, kills=kills).run()
        return {name: flat(thing.state_dict()) for name, thing in loop.live.items()}

    unkilled = final([])
    assert unkilled["memory"]["/memory/beside/der++/outputs"]
    assert final([(1, 2), (2, 0), (2, 4), (3, 5), (3, 6)]) == unkilled


class OnDevice(TorchMaths):
    """Counts what crosses to the host."""

    copies = 0

    def array(self, tensor):
        self.copies += 1
        return super().array(tensor)


def test_a_step_reads_nothing_back_from_the_device():
    """Everything that decides is on the host already."""
    memory = stored(mlp(), range(20))
    counting = OnDevice()
    hook = LogitReplay(memory=memory)
    hook.begin(SimpleNamespace(maths=counting, model=mlp(), increment=2))
    hook.penalty(torch.zeros(2, 4), batch_of(INPUTS[:2], LABELS[:2], [0, 1]))
    assert counting.copies == 0
