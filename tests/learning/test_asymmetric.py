"""Asymmetric cross entropy: with the loop's own cross entropy it is exactly ER-ACE's loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from onward.errors import UsageError
from onward.learning.asymmetric import AsymmetricCrossEntropy
from tests.learning.models import batch_of, mlp, setting


def begun(increment=2, against_all=0.0):
    hook = AsymmetricCrossEntropy(against_all=against_all)
    hook.begin(setting(mlp(), increment=increment))
    return hook


def drawn(rows=6, classes=5):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    return outputs.requires_grad_()


def wanted(outputs, labels, slots):
    """Summed row by row from the paper's text."""
    present = sorted({int(label) for label, slot in zip(labels, slots, strict=True) if slot < 0})
    total = 0
    for row, (label, slot) in enumerate(zip(labels.tolist(), slots, strict=True)):
        if slot >= 0:
            total += cross_entropy(outputs[row], torch.tensor(label))
        else:
            total += cross_entropy(outputs[row, present], torch.tensor(present.index(label)))
    return total / len(slots)


@pytest.mark.parametrize(
    ("labels", "slots"),
    [
        ([3, 4, 3, 0, 1, 2], [-1, -1, -1, 5, 9, 0]),
        ([3, 4, 0, 3, 3, 1], [-1, -1, 2, 1, -1, 0]),
        ([3, 4, 3, 4, 4, 3], [-1] * 6),
        ([2, 2, 2, 0, 1, 0], [-1, -1, -1, 5, 9, 0]),
    ],
    ids=["old and new", "a new class in the memory too", "no memory", "one new class"],
)
def test_the_sum_with_the_loops_cross_entropy_is_the_ace_loss(labels, slots):
    """Value and gradients."""
    outputs, labels = drawn(), torch.tensor(labels)
    total = cross_entropy(outputs, labels)
    total = total + begun().penalty(outputs, batch_of(outputs, labels, slots))
    ace = wanted(outputs, labels, slots)
    torch.testing.assert_close(total, ace)
    (found,) = torch.autograd.grad(total, outputs)
    torch.testing.assert_close(found, torch.autograd.grad(ace, outputs)[0])


def test_a_share_of_the_loss_may_stay_plain():
    """It is a mean of both losses; all of it plain is no penalty."""
    outputs, labels, slots = drawn(), torch.tensor([3, 4, 3, 0, 1, 2]), [-1, -1, -1, 5, 9, 0]
    batch = batch_of(outputs, labels, slots)
    plain, ace = cross_entropy(outputs, labels), wanted(outputs, labels, slots)
    found = plain + begun(against_all=0.25).penalty(outputs, batch)
    torch.testing.assert_close(found, 0.25 * plain + 0.75 * ace)
    assert begun(against_all=1.0).penalty(outputs, batch).item() == 0
    with pytest.raises(UsageError, match="against_all"):
        AsymmetricCrossEntropy(against_all=1.5)


def test_new_items_leave_absent_classes_alone():
    """No gradient of a new row pushes the output of a class that is only in the memory."""
    outputs, labels, slots = drawn(), torch.tensor([3, 4, 3, 0, 1, 2]), [-1, -1, -1, 5, 9, 0]
    total = cross_entropy(outputs, labels)
    total = total + begun().penalty(outputs, batch_of(outputs, labels, slots))
    (found,) = torch.autograd.grad(total, outputs)
    assert found[:3, :3].abs().max() < 1e-12
    assert found[3:].abs().min() > 1e-6


def test_the_first_increment_is_learned_plainly():
    """The penalty is a zero where the outputs are, in their dtype."""
    penalty = begun(increment=1).penalty(drawn(), batch_of(drawn(), torch.zeros(6).long()))
    assert (penalty.item(), penalty.dtype, penalty.shape) == (0, torch.float64, ())


def test_a_batch_of_the_memory_alone_is_learned_plainly():
    """Nothing in it is new."""
    batch = batch_of(drawn(), torch.zeros(6).long(), range(6))
    assert begun().penalty(drawn(), batch).item() == 0


def test_outputs_far_apart_stay_finite():
    """In single precision, where the powers of e would not be."""
    outputs = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    penalty = begun().penalty(outputs, batch_of(outputs, torch.tensor([1, 0]), [-1, 3]))
    penalty.backward()
    assert penalty.isfinite()
    assert outputs.grad.isfinite().all()


def test_outputs_that_are_no_classes_are_refused():
    """The error says what shapes are needed."""
    outputs = torch.zeros(2, 3, 4)
    with pytest.raises(UsageError, match="ER-ACE was given"):
        begun().penalty(outputs, batch_of(outputs, torch.zeros(2, 3).long()))
    with pytest.raises(UsageError, match="ER-ACE was given"):
        begun().penalty(torch.zeros(2, 3), batch_of(outputs, torch.zeros(2, 3)))
