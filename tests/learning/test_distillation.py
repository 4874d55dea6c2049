"""Distillation: the teacher, what it teaches, and when it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import Mismatch, UsageError
from onward.learning.distillation import Distillation
from tests.learning.models import ListedLessons, batch_of, mlp, problem, setting, stored_and_back

INPUTS, LABELS = problem()


def lessons(classes, *, told=True):
    new = [i for i in range(40) if int(LABELS[i]) in classes]
    return ListedLessons(INPUTS, LABELS, new, told=told)


def after_first(model, classes, *, told=True, **options):
    """A distillation that has seen one increment with these classes."""
    first = Distillation(**options)
    first.begin(setting(model, increment=1))
    first.before_increment(lessons(classes, told=told))
    first.after_increment(lessons(classes, told=told))
    later = Distillation(**options)
    stored_and_back(first, later)
    return later


def divergence(teacher, model, *, temperature):
    old = torch.log_softmax(teacher / temperature, 1)
    now = torch.log_softmax(model / temperature, 1)
    return nn.functional.kl_div(now, old, reduction="batchmean", log_target=True) * temperature**2


def test_the_first_increment_has_no_teacher():
    """The penalty is a zero where the outputs are, and the state holds no weights."""
    model = mlp().double()
    hook = Distillation()
    hook.begin(setting(model, increment=1))
    hook.before_increment(lessons((0, 1)))
    penalty = hook.penalty(model(INPUTS.double()), batch_of(INPUTS, LABELS))
    assert (penalty.item(), penalty.dtype, penalty.shape) == (0, torch.float64, ())
    assert hook.state_dict()["teacher"] == {}


@pytest.mark.parametrize("classes", [(0, 1), (1, 3), (0, 1, 2, 3)])
def test_the_penalty_is_the_divergence_over_old_classes(classes):
    """Value and gradients of weight · T² · KL over the outputs that were taught."""
    model = mlp()
    hook = after_first(model, classes, weight=0.5, temperature=3.0)
    hook.begin(setting(model))
    hook.before_increment(lessons((2, 3)))
    teacher = model(INPUTS).detach()
    with torch.no_grad():
        model[2].weight += torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    outputs = model(INPUTS)
    penalty = hook.penalty(outputs, batch_of(INPUTS, LABELS))
    picked = list(classes)
    wanted = 0.5 * divergence(teacher[:, picked], outputs[:, picked], temperature=3.0)
    assert penalty > 0.01
    torch.testing.assert_close(penalty, wanted)
    (found,) = torch.autograd.grad(penalty, outputs, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, outputs)[0])
    new = [c for c in range(4) if c not in classes]
    assert not found[:, new].any()


@pytest.mark.parametrize("told", [True, False])
def test_what_the_head_has_grown_by_is_not_taught(told):
    """With or without known classes, only outputs of before count."""
    small, large = mlp(2), mlp(4)
    hook = after_first(small, (0, 1), told=told)
    hook.begin(setting(large))
    hook.before_increment(lessons((2, 3), told=told))
    with torch.no_grad():
        large[2].weight += 0.5 * torch.arange(4.0).reshape(4, 1)
    outputs = large(INPUTS)
    penalty = hook.penalty(outputs, batch_of(INPUTS, LABELS))
    (found,) = torch.autograd.grad(penalty, outputs)
    assert penalty > 0
    assert found[:, :2].any()
    assert not found[:, 2:].any()


def test_a_resumed_increment_has_its_teacher_back_not_a_new_one():
    """The teacher is restored: the live model has moved on meanwhile."""
    model = mlp()
    hook = after_first(model, (0, 1))
    hook.begin(setting(model))
    hook.before_increment(lessons((2, 3)))
    with torch.no_grad():
        model[2].weight[0] += 1
    batch = batch_of(INPUTS, LABELS)
    penalty = hook.penalty(model(INPUTS), batch)
    resumed = Distillation()
    stored_and_back(hook, resumed)
    resumed.begin(setting(model))
    assert penalty > 0
    assert resumed.penalty(model(INPUTS), batch).item() == penalty.item()


def test_a_teacher_of_an_earlier_increment_is_forgotten():
    """Finished or given up: the next increment's teacher is the model that it starts from."""
    model = mlp(2)
    hook = after_first(model, (0, 1))
    hook.begin(setting(model))
    hook.before_increment(lessons((0, 1)))
    assert hook.state_dict()["teacher"]
    later = Distillation()
    later.load_state_dict(hook.state_dict())
    later.begin(setting(mlp(4), increment=3))
    assert later.state_dict()["teacher"] == {}
    hook.after_increment(lessons((0, 1)))
    assert hook.state_dict()["teacher"] == {}


def test_classes_add_up_over_increments():
    """Each that was learned once is taught ever after."""
    model = mlp()
    hook = after_first(model, (3,))
    hook.begin(setting(model))
    hook.before_increment(lessons((1,)))
    hook.after_increment(lessons((1,)))
    assert np.array_equal(hook.state_dict()["taught"], [1, 3])


def test_a_teacher_that_does_not_fit_is_refused():
    """Every weight that differs is named."""
    model = mlp()
    hook = after_first(model, (0, 1))
    hook.begin(setting(model))
    hook.before_increment(lessons((2, 3)))
    resumed = Distillation()
    resumed.load_state_dict(hook.state_dict())
    with pytest.raises(Mismatch, match=r"2\.weight"):
        resumed.begin(setting(mlp(3)))


def test_texts_count_by_the_token():
    """Outputs of shape [items, tokens, classes] are meaned over all but the last axis."""
    model = nn.Sequential(mlp(), nn.Unflatten(1, (2, 2)))
    hook = Distillation(temperature=1.0)
    hook.begin(setting(model))
    hook.before_increment(lessons((0, 1)))
    teacher = model(INPUTS).detach()
    with torch.no_grad():
        model[0][2].weight[0] += 1
    outputs = model(INPUTS)
    penalty = hook.penalty(outputs, batch_of(INPUTS, LABELS))
    wanted = divergence(teacher.reshape(-1, 2), outputs.reshape(-1, 2), temperature=1.0)
    torch.testing.assert_close(penalty, wanted)


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"temperature": 0.0}])
def test_impossible_options_are_refused(options):
    """When it is made, not in an increment."""
    with pytest.raises(UsageError):
        Distillation(**options)
