"""PyTorch's live objects survive the way through a state tree bit for bit."""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from onward.errors import StateError, Unstorable
from onward.frameworks import torch as framework
from onward.frameworks.base import Framework, Tagged, TensorLeaf
from onward.frameworks.torch_tensors import freeze, moved_like, thaw

PROTOCOL: Framework = framework  # a module can keep a protocol; mypy checks it here


def through_bytes(tree: Any) -> Any:
    """The tree as a repository gives it back: read-only bytes of its own, no identity."""
    match tree:
        case TensorLeaf():
            assert tree.data is not None
            assert tree.data.nbytes == tree.size_bytes
            data = np.frombuffer(tree.data.tobytes(), np.uint8)
            return TensorLeaf(dtype=tree.dtype, shape=tree.shape, kind=tree.kind, data=data)
        case Tagged():
            return Tagged(tree.tag, through_bytes(tree.value))
        case dict():
            return {key: through_bytes(child) for key, child in tree.items()}
        case list() | tuple():
            return type(tree)(through_bytes(child) for child in tree)
    return copy.deepcopy(tree)


def without_data(tree: Any) -> Any:
    """The tree as a manifest alone describes it."""
    match tree:
        case TensorLeaf():
            return TensorLeaf(dtype=tree.dtype, shape=tree.shape, kind=tree.kind)
        case dict():
            return {key: without_data(child) for key, child in tree.items()}
        case list():
            return [without_data(child) for child in tree]
    return tree


def same(a: Any, b: Any) -> bool:
    """Equal types and equal bits, all the way down."""
    if isinstance(a, TensorLeaf):
        described = (a.dtype, a.shape, a.kind) == (b.dtype, b.shape, b.kind)
        return described and bool(np.array_equal(a.data, b.data))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


class Net(nn.Module):
    """Convolution, normalisation with buffers, dropout, and tied embeddings."""

    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.fc = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, 11, bias=False)
        self.out.weight = self.embedding.weight
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(torch.tanh(self.fc(self.embedding(x))))
        return self.out(self.drop(hidden))


def net(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**options)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, **also: Any) -> None:
    for step in steps:

        def closure(step: int = step) -> torch.Tensor:
            torch.manual_seed(1000 + step)  # batch and dropout of this step
            x = torch.randint(11, (16,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x).float(), x)
            loss.backward()
            return loss

        optimizer.step(closure)
        if scheduler := also.get("scheduler"):
            metrics = (float(step % 3),)
            plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*(metrics if plateau else ()))
        if ema := also.get("ema"):
            ema.update_parameters(model)


Make = Callable[[], dict[str, Any]]


def check_resumed_equals_uninterrupted(make: Make) -> None:
    whole = make()
    train(steps=range(9), **whole)

    first = make()
    train(steps=range(5), **first)
    tree = through_bytes(framework.capture(first))
    torch.manual_seed(99)
    second = make()
    train(steps=range(100, 101), **second)  # not fresh, so that everything has to be replaced
    assert framework.differences(second, without_data(tree)) == []
    framework.restore(second, tree)
    assert same(framework.capture(second), tree)
    train(steps=range(5, 9), **second)
    assert same(framework.capture(second), framework.capture(whole))


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim == 2]


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adadelta": lambda m: torch.optim.Adadelta(m.parameters()),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters()),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr_decay=0.1),
    "adam amsgrad": lambda m: torch.optim.Adam(m.parameters(), amsgrad=True),
    "adam with a tensor as learning rate": lambda m: torch.optim.Adam(
        m.parameters(), lr=torch.tensor(0.01), foreach=False
    ),
    "adamax": lambda m: torch.optim.Adamax(m.parameters()),
    "adamw for-loop": lambda m: torch.optim.AdamW(m.parameters(), foreach=False),
    "adamw foreach": lambda m: torch.optim.AdamW(m.parameters(), foreach=True),
    "adamw fused": lambda m: torch.optim.AdamW(m.parameters(), fused=True),
    "asgd": lambda m: torch.optim.ASGD(m.parameters(), t0=3),
    "lbfgs": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3, history_size=4),
    "nadam": lambda m: torch.optim.NAdam(m.parameters()),
    "radam": lambda m: torch.optim.RAdam(m.parameters()),
    "rmsprop centred": lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "rprop": lambda m: torch.optim.Rprop(m.parameters()),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "sgd momentum fused": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.1, momentum=0.9, fused=True
    ),
    "sgd momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
}


if hasattr(torch.optim, "Muon"):  # since PyTorch 2.9
    OPTIMIZERS["muon"] = lambda m: torch.optim.Muon(matrices(m))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_of_torch_goes_on_as_if_never_stopped(name: str) -> None:
    """Capture, bytes, restore into other objects, train on: the same bits as without a stop."""

    def make() -> dict[str, Any]:
        model = net()
        return {"model": model, "optimizer": OPTIMIZERS[name](model)}

    check_resumed_equals_uninterrupted(make)


def test_every_optimizer_of_torch_is_tested() -> None:
    """A new optimizer in PyTorch must not go unnoticed."""
    kinds = {
        kind.__name__
        for kind in vars(torch.optim).values()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    model = net()
    made = {type(make(model)).__name__ for name, make in OPTIMIZERS.items()}
    assert kinds - made <= {"Optimizer", "SparseAdam"}


def test_sparse_gradients_of_an_embedding() -> None:
    """SparseAdam keeps dense moments for sparse gradients."""

    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        table = nn.Embedding(20, 3, sparse=True)
        return {"model": table, "optimizer": torch.optim.SparseAdam(table.parameters())}

    def steps(table: nn.Embedding, optimizer: torch.optim.Optimizer, which: range) -> None:
        for step in which:
            optimizer.zero_grad()
            table(torch.tensor([step, step + 1])).sum().backward()
            optimizer.step()

    whole, first, second = make(), make(), make()
    steps(whole["model"], whole["optimizer"], range(6))
    steps(first["model"], first["optimizer"], range(3))
    framework.restore(second, through_bytes(framework.capture(first)))
    steps(second["model"], second["optimizer"], range(3, 6))
    assert same(framework.capture(second), framework.capture(whole))


@pytest.mark.parametrize("fused", [False, True])
def test_float32_moments_of_bfloat16_parameters_are_not_rounded(fused: bool) -> None:
    """The dtype of optimizer state is the state's own, whatever its parameter has."""
    model = net(dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    train(model, optimizer, range(3))
    for values in optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            values[name] = values[name].float() + 1e-9
    tree = through_bytes(framework.capture({"model": model, "optimizer": optimizer}))

    other = net(1, dtype=torch.bfloat16)
    fresh = torch.optim.AdamW(other.parameters(), fused=fused)
    framework.restore({"model": other, "optimizer": fresh}, tree)
    moments = [values["exp_avg"] for values in fresh.state.values()]
    assert {moment.dtype for moment in moments} == {torch.float32}
    assert same(framework.capture({"model": other, "optimizer": fresh}), tree)


def test_state_of_a_channels_last_parameter_has_its_strides_again() -> None:
    """Kernels may round differently over other layouts, so moments get the layout they had."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    objects = {"model": model, "optimizer": optimizer}
    tree = through_bytes(framework.capture(objects))
    framework.restore(objects, tree)
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment.stride() == model.weight.stride()
    assert same(framework.capture(objects), tree)


def test_state_is_cleared_for_parameters_that_had_none() -> None:
    """After a restore the optimizer knows what the checkpoint knew and nothing else."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    objects = {"model": model, "optimizer": optimizer}
    fresh = through_bytes(framework.capture(objects))
    train(model, optimizer, range(2))
    assert len(optimizer.state) > 0
    framework.restore(objects, fresh)
    assert len(optimizer.state) == 0


def test_parameters_stay_the_same_objects() -> None:
    """Whoever holds a parameter (an optimizer, a tie, a hook) still holds the live one."""
    model = net()
    before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    tree = through_bytes(framework.capture({"model": net(1)}))
    framework.restore({"model": model}, tree)
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == before
    assert model.out.weight is model.embedding.weight


def test_tied_weights_have_one_identity_and_equal_ones_have_two() -> None:
    """Shared memory is stored once; equal values in two places are two tensors."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model["c"].load_state_dict(model["a"].state_dict())
    tree = framework.capture({"model": model})["model"]
    assert tree["a.weight"].identity == tree["b.weight"].identity
    assert tree["a.weight"].identity != tree["c.weight"].identity
    assert tree["a.weight"].identity != tree["a.bias"].identity


def test_wrapped_models_have_the_names_of_the_model_within() -> None:
    """A checkpoint does not depend on torch.compile or data parallelism being in use."""
    plain = net()
    inner = net()
    inner.fc = torch.compile(inner.fc)  # type: ignore[assignment]
    tree = framework.capture({"model": plain})
    for wrapped in (torch.compile(net(1)), nn.DataParallel(net(1)), inner):
        assert framework.differences({"model": wrapped}, tree) == []
        framework.restore({"model": wrapped}, through_bytes(tree))
        assert same(framework.capture({"model": wrapped}), tree)
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    groups = framework.capture({"model": inner, "optimizer": optimizer})["optimizer"][
        "param_groups"
    ]
    assert groups[0]["params"][1] == "model.fc.weight"


def test_extra_state_of_a_module_is_kept() -> None:
    """What a module gives as extra state comes back as it was."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Any = None

        def get_extra_state(self) -> Any:
            return self.seen

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    model, other = Counting(), Counting()
    model.seen = {"count": 3, "mean": torch.tensor([1.5]), "shape": torch.Size([2, 3])}
    framework.restore({"model": other}, through_bytes(framework.capture({"model": model})))
    assert other.seen["count"] == 3
    assert torch.equal(other.seen["mean"], torch.tensor([1.5]))
    assert type(other.seen["shape"]) is torch.Size


def test_optimizer_state_goes_by_name_and_unnamed_parameters_by_place() -> None:
    """Names come from the modules that were given; other parameters have a place in a group."""
    model, loose = net(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(
        [{"params": [model.fc.weight]}, {"params": [loose], "lr": 0.5}], lr=0.1, momentum=0.9
    )
    (model.fc.weight.sum() + loose.sum()).backward()
    optimizer.step()
    tree = framework.capture({"net": model, "sgd": optimizer})["sgd"]
    assert tree["type"] == "SGD"
    assert [group["params"] for group in tree["param_groups"]] == [
        ["net.fc.weight"],
        ["group1.param0"],
    ]
    assert set(tree["state"]) == {"net.fc.weight", "group1.param0"}


def test_optimizer_with_its_own_verbs_uses_them() -> None:
    """A subclass that overrides state_dict or load_state_dict knows more than we do."""

    class Own(torch.optim.SGD):
        extra = 0

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "extra": self.extra}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.extra = state_dict["extra"]
            super().load_state_dict({k: v for k, v in state_dict.items() if k != "extra"})

    def make() -> dict[str, Any]:
        model = net()
        return {"model": model, "optimizer": Own(model.parameters(), lr=0.1, momentum=0.9)}

    check_resumed_equals_uninterrupted(make)
    objects = make()
    objects["optimizer"].extra = 7
    tree = through_bytes(framework.capture(objects))
    other = make()
    other["optimizer"].param_groups[0]["lr"] = 0.3
    framework.restore_for_new_budget(other, tree)
    assert other["optimizer"].extra == 7
    assert framework.learning_rates(other["optimizer"]) == [0.3]


class Warmup:
    """A callable with state, as LambdaLR keeps it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return min(1.0, (step + self.calls) / 20)


def warm_then_cosine(o: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 6)],
        milestones=[3],
    )


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "warm-up then cosine": warm_then_cosine,
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, [2, 6, 6]),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "function": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "callable object": lambda o: lr_scheduler.LambdaLR(o, Warmup()),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "stochastic averaging": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=4),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_go_on_where_they_were(name: str) -> None:
    """A scheduler and the optimizer it drives resume together, bit for bit."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}

    check_resumed_equals_uninterrupted(make)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    """A captured CUDA graph reads the tensor, so its value changes and not its place."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    check_resumed_equals_uninterrupted(make)
    objects = make()
    tree = through_bytes(framework.capture(objects))
    held = objects["optimizer"].param_groups[0]["lr"]
    train(steps=range(4), **objects)
    framework.restore(objects, tree)
    assert objects["optimizer"].param_groups[0]["lr"] is held
    assert held.item() == torch.tensor(0.1).item()


def test_averaged_model_scaler_and_generator_are_restored() -> None:
    """Averages keep their count, the scaler its scale and tracker, a generator its place."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters())
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        return {"model": model, "optimizer": optimizer, "ema": ema}

    check_resumed_equals_uninterrupted(make)

    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    live = scaler()
    for _ in range(4):
        live.scale(model(torch.arange(11)).sum()).backward()
        live.step(optimizer)
        live.update()
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    tree = through_bytes(framework.capture({"scaler": live, "generator": generator}))
    others = {"scaler": scaler(), "generator": torch.Generator()}
    assert framework.differences(others, tree) == []
    framework.restore(others, tree)
    assert others["scaler"].state_dict() == live.state_dict()
    assert live.state_dict()["_growth_tracker"] == 1
    assert torch.equal(
        torch.rand(4, generator=others["generator"]), torch.rand(4, generator=generator)
    )
    disabled = {"scaler": torch.amp.GradScaler("cpu", enabled=False), "generator": generator}
    assert framework.differences(disabled, tree) == [
        "scaler: the checkpoint has it enabled, the live one is disabled"
    ]


class Remembers:
    """Something of the user's own with a state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_values_of_every_kind_come_back_as_they_were() -> None:
    """Types and bits of everything that a state may hold, tensors of every dtype included."""
    ints = torch.arange(-4, 4)
    state = {
        "plain": [None, True, 3, -0.0, float("inf"), 2 + 1j, "text", b"bytes", (1, (2,))],
        7: {("a", 1): np.float32(0.1), np.int64(3): np.bool_(True)},
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "counter": Counter("abca"),
        "default": defaultdict(list, {"a": [1]}),
        "deque": deque([1, 2], maxlen=3),
        "set": {1, "a"},
        "tensors": {
            str(dtype): ints.to(dtype)
            for dtype in (
                torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16,
                torch.float32, torch.float64, torch.complex64, torch.complex128,
                torch.float8_e4m3fn, torch.float8_e5m2,
            )
        },
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), -0.0]),
        "transposed": torch.arange(6).reshape(2, 3).t(),
        "expanded": torch.tensor([1.0]).expand(3),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "negated": torch.tensor([1 + 2j]).conj().imag,
        "needs grad": torch.ones(2, requires_grad=True),
        "arrays": {
            str(np.dtype(kind)): np.arange(3).astype(kind)
            for kind in ("?", "u1", "i2", "<u4", "i8", "f2", "f4", "f8", "c8", "c16")
        },
        "big-endian": np.arange(3, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "no dimensions": np.array(3.5),
    }  # fmt: skip
    other = Remembers()
    tree = through_bytes(framework.capture({"mine": Remembers(state)}))
    framework.restore({"mine": other}, tree)
    back = other.state
    assert same(framework.capture({"mine": other}), tree)
    for name in ("plain", 7, "dtype", "device", "size", "counter", "default", "deque", "set"):
        assert back[name] == state[name]
        assert type(back[name]) is type(state[name])
    for name in ("transposed", "expanded", "conjugated", "negated", "scalar", "empty"):
        assert torch.equal(back[name], state[name])
    assert back["default"].default_factory is list
    assert back["deque"].maxlen == 3
    assert not back["needs grad"].requires_grad
    for name in ("big-endian", "fortran", "no dimensions"):
        assert np.array_equal(back[name], state[name])
    back["scalar"].add_(1)  # its own memory, free to be written
    back["no dimensions"][...] = 1


def test_leaves_share_memory_with_live_tensors() -> None:
    """Capturing host tensors copies nothing."""
    model = nn.Linear(3, 3)
    leaf = framework.capture({"model": model})["model"]["weight"]
    with torch.no_grad():
        model.weight.fill_(2)
    assert leaf.data.view(np.float32).tolist() == [2.0] * 9


class Pair(NamedTuple):
    a: int


def circle() -> list[Any]:
    a: list[Any] = [1]
    a.append({"again": a})
    return a


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"lr_lambdas": [lambda step: step]}, "mine.lr_lambdas[0] is a function"),
        ({"a": {3: object()}}, "mine.a[3] is a builtins.object"),
        ({"a": torch.eye(2).to_sparse()}, "mine.a is sparse"),
        ({"a": torch.empty(2, device="meta")}, "mine.a is on the meta device"),
        ({"a": np.array(["x"])}, "mine.a is a NumPy ndarray of <U1"),
        ({"a": np.ma.masked_array([1], [True])}, "mine.a is a NumPy MaskedArray"),
        ({"a": (1, Pair(3))}, "mine.a[1] is the named tuple Pair"),
        ({"a": {torch.tensor(1): 2}}, "mine.a has the key tensor(1)"),
        ({"a": {object}}, "mine.a has the key <class 'object'>"),
        (circle(), "mine[1].again contains itself"),
        ({"a": defaultdict(lambda: 3)}, "mine.a is a defaultdict"),
        ({"a": nn.UninitializedParameter()}, "mine.a has no shape yet"),
        ({"a": Remembers()}, "mine.a is a "),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_path(state: Any, path: str) -> None:
    """`Unstorable` says where the thing is and what to do."""
    with pytest.raises(Unstorable) as caught:
        framework.capture({"mine": Remembers(state)})
    assert caught.value.what.startswith(path)
    assert caught.value.do


@pytest.mark.parametrize("thing", [nn.functional.relu, None, Remembers, {"a": 1}])
def test_an_object_without_state_is_named_by_its_keyword(thing: Any) -> None:
    """What is neither PyTorch's nor `Stateful` is refused, never skipped."""
    for verb in (framework.capture, lambda objects: framework.differences(objects, {"loss": {}})):
        with pytest.raises(Unstorable, match=r"loss= is a "):
            verb({"loss": thing})


def test_all_differences_are_listed_and_nothing_is_touched() -> None:
    """Names, shapes, dtypes, optimizer groups and missing objects, in one list."""
    small = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 2), nn.BatchNorm1d(2))
    groups = [{"params": small[0].parameters()}, {"params": small[1].parameters()}]
    saved = {
        "model": small,
        "optimizer": torch.optim.SGD(groups, lr=0.1),
        "adam": torch.optim.Adam(small.parameters()),
        "scheduler": lr_scheduler.ExponentialLR(torch.optim.SGD(small.parameters()), 0.9),
        "ema": AveragedModel(small),
    }
    tree = without_data(framework.capture(saved))
    big = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 2, bias=False), nn.Linear(2, 2))
    big[2].to(torch.float64)
    sgd = torch.optim.SGD(
        [{"params": big[0].parameters()}, {"params": [*big[1].parameters(), big[2].bias]}], lr=0.1
    )
    live = {
        "model": big,
        "optimizer": sgd,
        "adam": torch.optim.AdamW(big.parameters()),
        "scheduler": lr_scheduler.CosineAnnealingLR(sgd, 3),
        "scaler": torch.amp.GradScaler("cpu"),
    }
    before = through_bytes(framework.capture(live))
    assert framework.differences(live, tree) == [
        "model.0.weight: the checkpoint has F32 [10, 4], the live model F32 [12, 4]",
        "model.0.bias: the checkpoint has F32 [10], the live model F32 [12]",
        "model.1.weight: the checkpoint has F32 [2, 10], the live model F32 [2, 12]",
        "model.2.weight: the checkpoint has F32 [2], the live model F64 [2, 2]",
        "model.2.bias: the checkpoint has F32 [2], the live model F64 [2]",
        "model.1.bias: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.running_mean: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.running_var: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.num_batches_tracked: the checkpoint has it I64 [], "
        "the live model has no such entry",
        "optimizer.param_groups[1]: the checkpoint has no model.2.bias",
        "optimizer.param_groups[1]: the checkpoint has model.1.bias, the live one does not",
        "adam: the checkpoint has Adam, the live one is AdamW",
        "scheduler: the checkpoint has ExponentialLR, the live one is CosineAnnealingLR",
        "scaler: the checkpoint has no such object",
        "ema: the checkpoint has it, but it was not given (pass ema=…)",
    ]
    assert same(framework.capture(live), before)


def test_optimizer_groups_of_another_number_or_order_differ() -> None:
    """The number of groups and the order within one are compared too."""
    model = nn.Linear(2, 2)
    one = torch.optim.SGD(model.parameters(), lr=0.1)
    turned = torch.optim.SGD([model.bias, model.weight], lr=0.1)
    two = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    tree = framework.capture({"model": model, "o": one})
    assert framework.differences({"model": model, "o": two}, tree) == [
        "o: the checkpoint has 1 parameter groups (of 2 parameters), the live one has 2 (of 1, 1)"
    ]
    assert framework.differences({"model": model, "o": turned}, tree) == [
        "o.param_groups[0]: the checkpoint has the same parameters in another order"
    ]


def test_a_finished_run_trains_its_new_budget_on_the_fresh_schedule() -> None:
    """Continue: all that was learned comes back, and the learning rate does not stay at zero."""

    def make(steps: int) -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
            "ema": AveragedModel(model),
            "mine": Remembers({"count": 0}),
        }

    finished = make(5)
    train(
        finished["model"],
        finished["optimizer"],
        range(5),
        scheduler=finished["scheduler"],
        ema=finished["ema"],
    )
    finished["mine"].state = {"count": 5}
    assert framework.learning_rates(finished["optimizer"]) == [0.0]
    tree = through_bytes(framework.capture(finished))

    live = make(20)
    expected_schedule = copy.deepcopy(live["scheduler"].state_dict())
    assert framework.differences_for_new_budget(live, without_data(tree)) == []
    framework.restore_for_new_budget(live, tree)
    assert framework.learning_rates(live["optimizer"]) == [0.1]
    assert live["scheduler"].state_dict() == expected_schedule
    after = framework.capture(live)
    for key in ("model", "ema", "mine"):
        assert same(after[key], tree[key])
    assert same(after["optimizer"]["state"], tree["optimizer"]["state"])
    train(live["model"], live["optimizer"], range(2), scheduler=live["scheduler"])
    assert framework.learning_rates(live["optimizer"])[0] > 0.09


def test_a_new_budget_may_have_another_schedule_or_none() -> None:
    """Schedules belong to a budget; everything else must still fit."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    without = {"model": model, "optimizer": optimizer}
    with_one = {**without, "scheduler": scheduler}
    cosine = {**without, "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, 3)}
    saved = framework.capture(with_one)
    for objects in (without, with_one, cosine):
        assert framework.differences_for_new_budget(objects, saved) == []
        framework.restore_for_new_budget(objects, through_bytes(saved))
    assert framework.differences_for_new_budget(with_one, framework.capture(without)) == []
    assert framework.differences_for_new_budget({"model": model}, saved) == [
        "optimizer: the checkpoint has it, but it was not given (pass optimizer=…)"
    ]


def test_a_branch_takes_the_weights_and_nothing_else() -> None:
    """Modules, averaged ones too, come from the checkpoint; the optimizer starts fresh."""
    model = net()
    objects = {
        "model": model,
        "ema": AveragedModel(model),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1),
    }
    train(**objects, steps=range(3))
    tree = through_bytes(framework.capture(objects))
    other = net(3)
    branch = {
        "model": other,
        "ema": AveragedModel(other),
        "optimizer": torch.optim.SGD(other.parameters(), lr=0.5),
    }
    assert framework.differences_in_weights(branch, tree) == []
    framework.restore_weights(branch, tree)
    after = framework.capture(branch)
    assert same(after["model"], tree["model"])
    assert same(after["ema"], tree["ema"])
    assert framework.learning_rates(branch["optimizer"]) == [0.5]
    assert len(branch["optimizer"].state) == 0
    assert framework.differences_in_weights({"net": other}, tree) == [
        "net: the checkpoint has no such object"
    ]


def test_global_randomness_comes_back_exactly() -> None:
    """Python, NumPy (with its spare Gaussian) and PyTorch draw on as they would have."""

    def draw() -> list[Any]:
        return [
            random.random(),
            random.gauss(0, 1),
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
        ]

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    random.gauss(0, 1)
    np.random.standard_normal(1)  # leaves a spare one in each
    tree = through_bytes(framework.capture_randomness())
    expected = draw()
    draw()
    framework.restore_randomness(tree)
    assert draw() == expected


def test_randomness_of_devices_that_are_gone_is_passed_over() -> None:
    """A checkpoint from a machine with accelerators can be restored on one without."""
    tree = framework.capture_randomness()
    tree["devices"]["cuda"] = [tree["torch"]]
    if not torch.cuda.is_available():
        framework.restore_randomness(tree)


def test_another_global_bit_generator_of_numpy_comes_back_too() -> None:
    """NumPy's global generator may have been exchanged; its state says which it is."""
    from numpy.random.mtrand import get_bit_generator, set_bit_generator

    before = get_bit_generator()
    try:
        set_bit_generator(np.random.PCG64(5))
        tree = through_bytes(framework.capture_randomness())
        expected = np.random.random(3).tolist()
        framework.restore_randomness(tree)
        assert np.random.random(3).tolist() == expected
    finally:
        set_bit_generator(before)


def test_steps_are_counted_until_the_hook_is_removed() -> None:
    """Every step that the optimizer takes calls back once."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[int] = []
    remove = framework.after_optimizer_step(optimizer, lambda: calls.append(1))
    assert remove is not None
    train(model, optimizer, range(3))
    remove()
    train(model, optimizer, range(1))
    assert len(calls) == 3
    assert framework.after_optimizer_step(model, lambda: None) is None
    assert framework.learning_rates(model) == []


def test_models_evaluate_without_gradients_and_are_then_as_before() -> None:
    """Each module has its own mode back, also where training only uses a part."""
    model = net()
    model.norm.eval()
    with framework.evaluating({"model": model, "ema": AveragedModel(model)}):
        assert not model.training
        assert not model.drop.training
        assert not model(torch.arange(4)).requires_grad
    assert model.training
    assert model.drop.training
    assert not model.norm.training


def test_an_unknown_tag_or_framework_is_refused() -> None:
    """A checkpoint of a newer version or of another framework is an error that says so."""
    with pytest.raises(StateError, match=r"torch\.layout"):
        thaw(Tagged("torch.layout", "strided"))
    with pytest.raises(StateError, match="mindspore"):
        thaw(TensorLeaf(dtype="F32", shape=(), kind="mindspore", data=np.zeros(4, np.uint8)))
    with pytest.raises(StateError):
        thaw(Tagged("torch.dtype", "load"))


def test_bytes_at_odd_addresses_are_read() -> None:
    """A pack may place a tensor anywhere; alignment is our business."""
    leaf = freeze(torch.arange(4.0), "x")
    odd = np.frombuffer(b"x" + leaf.data.tobytes(), np.uint8)[1:]
    moved = TensorLeaf(dtype="F32", shape=(4,), kind="torch", data=odd)
    assert thaw(moved).tolist() == [0.0, 1.0, 2.0, 3.0]
    array = TensorLeaf(dtype="F32", shape=(4,), kind="numpy", data=odd)
    assert thaw(array).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_tensors_of_a_stateful_go_where_the_live_ones_are() -> None:
    """An average of the user's own lives on the accelerator; the meta device stands in for it."""
    device = torch.device("meta")
    live = {"shadow": [torch.empty(2, device=device)], "new": None, "pair": (1, torch.empty(2))}
    stored = {"shadow": [torch.ones(2), torch.ones(3)], "gone": torch.ones(1), "pair": (1, 2)}
    moved = moved_like(stored, live)
    assert [tensor.device.type for tensor in moved["shadow"]] == ["meta", "cpu"]
    assert moved["gone"].device.type == "cpu"
    assert moved["pair"] == (1, 2)
