"""Small MindSpore trainings with everything that must resume exactly, in processes that get killed.

Processes are forked from one that has imported MindSpore but never run an operator: its threads
begin with the first one, so that there is nothing yet that a fork could break.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import amp, nn
from mindspore.dataset import vision
from mindspore.train import Callback, DynamicLossScaleManager, FixedLossScaleManager, Model

import onward
from onward.trainers.mindspore import OnwardCallback

from .killing import Executioner, Kill, SampleLog

ITEMS, FEATURES, CLASSES = 68, 12, 4
EPOCHS, BATCH = 3, 8
IMAGES, SIDE = 134, 28
IMAGE_BATCH, IMAGE_EPOCHS = 2, 2  # more batches than share one seed (SEGMENT)


@dataclass(frozen=True)
class Scenario:
    """One way of training. `accumulate` micro-batches make an optimizer step."""

    name: str
    loop: str = "function"  # or "model": Model.train
    optimizer: str = "adam"
    data: str = "onward"  # or "generator", "mapped", "images", "shuffled", "repeated"
    scaler: str = ""  # or "amp", "cell", "manager", "fixed"
    accumulate: int = 1
    step_after_micro_batches: bool = True
    graph: bool = False
    sampled: bool = True  # or only at full scale

    @property
    def epochs(self) -> int:
        return IMAGE_EPOCHS if self.data == "images" else EPOCHS

    @property
    def batches(self) -> int:
        """Of an epoch."""
        if self.data == "images":
            return IMAGES // IMAGE_BATCH
        return -(-ITEMS * (2 if self.data == "repeated" else 1) // BATCH)


SCENARIOS = [
    Scenario("adam, cosine table, dropout, batch norm"),
    Scenario("Model.train in graph mode, momentum", loop="model", optimizer="momentum", graph=True),
    Scenario(
        "Model.train, GeneratorDataset, AdamWeightDecay, fixed scale",
        loop="model", optimizer="adam-weight-decay", data="generator", scaler="fixed",
    ),
    Scenario("gradient accumulation", optimizer="momentum", accumulate=3),
    Scenario("accumulation counted by the loop", accumulate=2, step_after_micro_batches=False),
    Scenario("DynamicLossScaler, GeneratorDataset", data="generator", scaler="amp"),
    Scenario("DynamicLossScaleUpdateCell", optimizer="momentum", scaler="cell", sampled=False),
    Scenario("DynamicLossScaleManager", optimizer="adam-weight-decay", scaler="manager"),
    Scenario("MnistDataset, random crops and flips", optimizer="momentum", data="images"),
    Scenario("Model.train, MnistDataset", loop="model", data="images", sampled=False),
    Scenario("GeneratorDataset behind a map", optimizer="momentum", data="mapped"),
    Scenario("replayed: shuffle after the source", data="shuffled"),
    Scenario("Model.train, replayed: repeat", loop="model", data="repeated"),
]  # fmt: skip


class Items:
    """Synthetic items; each is augmented by the global generators of Python and NumPy."""

    def __init__(self, count: int = ITEMS) -> None:
        self.values = np.random.RandomState(7).standard_normal((count, FEATURES))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        value = self.values[index] + 0.1 * np.random.randn(FEATURES)
        value = value * (1 + 0.1 * random.random()) + 0.1 * np.random.rand()
        return value.astype(np.float32), np.int32(index % CLASSES)


def write_images(folder: Path) -> None:
    """A few images in the files of MNIST."""
    draw = np.random.RandomState(5)
    labels = (np.arange(IMAGES) % CLASSES).astype(np.uint8)
    pixels = draw.randint(0, 256, (IMAGES, SIDE, SIDE)).astype(np.uint8)
    header = struct.pack(">IIII", 0x803, IMAGES, SIDE, SIDE)
    (folder / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    header = struct.pack(">II", 0x801, IMAGES)
    (folder / "train-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def train(
    output: str,
    scenario: Scenario,
    *,
    workers: int = 0,
    kill: Kill | None = None,
    items: int = ITEMS,
    images: str = "",
    timeout_s: float = 120,
) -> None:
    """One process's part of a training; ends by finishing or by its own signal."""
    faulthandler.dump_traceback_later(timeout_s, exit=True)  # of a process that hangs
    # Handing each small operator to another thread takes most of the time on a busy machine.
    ms.runtime.launch_blocking()
    ms.set_context(mode=ms.GRAPH_MODE if scenario.graph else ms.PYNATIVE_MODE)
    ms.set_seed(3)
    random.seed(3)
    die = Executioner(kill or Kill())
    die.watch_file_operations()
    network = _network(scenario)
    optimizer = _optimizer(scenario, network)
    data = _data(scenario, items, images, workers)
    options = {
        "samples": SampleLog(), "save_every_steps": 3, "save_every_seconds": None, "seed": 11,
    }  # fmt: skip
    if scenario.loop == "model":
        _train_model(output, scenario, network, optimizer, data, workers, die, options)
    else:
        _train_function(output, scenario, network, optimizer, data, workers, die, options)
    faulthandler.cancel_dump_traceback_later()


def _train_function(
    output: str,
    scenario: Scenario,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    data: Any,
    workers: int,
    die: Executioner,
    options: dict[str, Any],
) -> None:
    log: SampleLog = options["samples"]
    update, scalers = _update(scenario, network, optimizer, log)
    run = onward.open(output, network=network, optimizer=optimizer, **scalers, **options)
    batches = _batches_of(run, scenario, data, workers)
    micro = 0
    for _epoch in run.epochs(scenario.epochs):
        network.set_train()
        die.reached("before-first-batch")
        for values, labels in batches:
            log.ids += [_digest(values, labels), _drawn()]
            micro += 1
            full = micro % scenario.accumulate == 0
            loss = update(values, labels, full)
            if full or scenario.step_after_micro_batches:
                run.step(loss=loss)
            die.reached("step")
        die.reached("epoch-end")
        run.log(noise=random.random() + np.random.rand())  # a script that draws between epochs
    run.finish()


def _train_model(
    output: str,
    scenario: Scenario,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    data: Any,
    workers: int,
    die: Executioner,
    options: dict[str, Any],
) -> None:
    scale = FixedLossScaleManager(1024.0, drop_overflow_update=False)
    model = Model(
        network, nn.CrossEntropyLoss(), optimizer,
        loss_scale_manager=scale if scenario.scaler == "fixed" else None, amp_level="O0",
    )  # fmt: skip
    keep = OnwardCallback(output, model, **options)
    batches = _batches_of(keep, scenario, data, workers)
    model.train(
        scenario.epochs, batches, callbacks=[_Draws(options["samples"]), keep, _Dies(die)],
        dataset_sink_mode=False, initial_epoch=keep.initial_epoch,
    )  # fmt: skip


class _Draws(Callback):  # type: ignore[misc]
    def __init__(self, log: SampleLog) -> None:
        super().__init__()
        self._log = log

    def on_train_step_end(self, run_context: Any) -> None:
        batch = run_context.original_args().train_dataset_element
        self._log.ids += [_digest(*batch), _drawn()]

    def on_train_epoch_end(self, run_context: Any) -> None:
        _drawn()  # before the state is saved: what callbacks do after that is not in it


class _Dies(Callback):  # type: ignore[misc]
    def __init__(self, die: Executioner) -> None:
        super().__init__()
        self._die = die

    def on_train_epoch_begin(self, run_context: Any) -> None:
        self._die.reached("before-first-batch")

    def on_train_step_end(self, run_context: Any) -> None:
        self._die.reached("step")

    def on_train_epoch_end(self, run_context: Any) -> None:
        self._die.reached("epoch-end")


def _digest(*columns: Any) -> int:
    """Of the very bits that a step was given, augmentations and all."""
    found = 0
    for column in columns:
        found = zlib.crc32(column.asnumpy().tobytes(), found)
    return found


def _drawn() -> int:
    """What the loop itself draws, from every global generator that is on the host."""
    return random.getrandbits(32) ^ int(np.random.randint(2**32))


def _network(scenario: Scenario) -> nn.Cell:
    if scenario.data == "images":
        return nn.SequentialCell(
            nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Dense(4 * 7 * 7, CLASSES),
        )  # fmt: skip
    # What a compiled dropout draws nobody can save.
    dropped = [] if scenario.graph else [nn.Dropout(p=0.3)]
    return nn.SequentialCell(
        nn.Dense(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), *dropped, nn.Dense(16, CLASSES)
    )


def _optimizer(scenario: Scenario, network: nn.Cell) -> nn.Optimizer:
    parameters = network.trainable_params()
    # Long enough for an increment of any data; a table is configuration, the same in every life.
    table = nn.cosine_decay_lr(0.0, 0.01, 2 * scenario.batches * scenario.epochs, 9, 5)
    match scenario.optimizer:
        case "adam":
            return nn.Adam(parameters, learning_rate=table)
        case "adam-weight-decay":
            return nn.AdamWeightDecay(parameters, learning_rate=table, weight_decay=0.01)
    return nn.Momentum(parameters, learning_rate=table, momentum=0.9, weight_decay=1e-4)


def _data(scenario: Scenario, items: int, images: str, workers: int) -> Any:
    several = max(1, workers)
    match scenario.data:
        case "onward":
            return Items(items)
        case "images":
            whole = ds.MnistDataset(images, shuffle=True, num_parallel_workers=several)
            # Each of them draws; the last is MindSpore's own, too.
            augment = [vision.RandomCrop(SIDE, padding=2), vision.RandomHorizontalFlip()]
            whole = whole.map(augment, "image", num_parallel_workers=several)
            whole = whole.map([vision.Rescale(1 / 255, 0), vision.HWC2CHW()], "image")
            whole = whole.map(lambda label: label.astype(np.int32), "label")
            return whole.batch(IMAGE_BATCH, num_parallel_workers=several)
    whole = ds.GeneratorDataset(
        Items(items), ["value", "label"], num_parallel_workers=several,
        shuffle=scenario.data in ("generator", "mapped"),
    )  # fmt: skip
    if scenario.data == "mapped":
        whole = whole.map(lambda value: value * np.float32(0.5), "value")
    if scenario.data == "shuffled":
        whole = whole.shuffle(32)
    if scenario.data == "repeated":
        whole = whole.repeat(2)
    return whole.batch(BATCH)


def _batches_of(run: Any, scenario: Scenario, data: Any, workers: int) -> Any:
    if scenario.data == "onward":
        return run.loader(data, batch_size=BATCH, num_workers=workers)
    return run.batches(data)


Update = Callable[[Any, Any, bool], Any]
"""Learns from a batch and returns its loss; steps if it is told that gradients are complete."""


def _update(
    scenario: Scenario, network: nn.Cell, optimizer: nn.Optimizer, log: SampleLog
) -> tuple[Update, dict[str, Any]]:
    criterion = nn.CrossEntropyLoss()
    if scenario.scaler in ("manager", "cell"):
        return _by_hand(scenario, network, optimizer, log)
    scaler = amp.DynamicLossScaler(2.0**14, 2, 5) if scenario.scaler == "amp" else None
    summed: list[Any] = []

    def forward(values: Any, labels: Any) -> Any:
        loss = criterion(network(values), labels) / scenario.accumulate
        return loss if scaler is None else scaler.scale(loss)

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters)

    def update(values: Any, labels: Any, full: bool) -> Any:
        loss, gradients = gradients_of(values, labels)
        if scaler is not None:
            gradients = _overflowing(gradients, log)
            finite = amp.all_finite(gradients)
            scaler.adjust(finite)
            if not finite:
                return loss
            gradients = scaler.unscale(gradients)
        added = [a + b for a, b in zip(summed, gradients, strict=False)]
        summed[:] = added or gradients
        if full:
            optimizer(tuple(summed))
            summed.clear()
        return loss

    return update, {"scaler": scaler}


def _by_hand(
    scenario: Scenario, network: nn.Cell, optimizer: nn.Optimizer, log: SampleLog
) -> tuple[Update, dict[str, Any]]:
    """As loops were written before there was `amp.DynamicLossScaler`."""
    criterion = nn.CrossEntropyLoss()
    manager = DynamicLossScaleManager(2**10, 2, 4)
    cell, sense = nn.DynamicLossScaleUpdateCell(2**10, 2, 4), ms.Parameter(2.0**10, name="sense")
    by_cell = scenario.scaler == "cell"

    def forward(values: Any, labels: Any, scale: Any) -> Any:
        return criterion(network(values), labels) * scale

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters)

    def update(values: Any, labels: Any, full: bool) -> Any:
        scale = float(sense.asnumpy()) if by_cell else float(manager.get_loss_scale())
        loss, gradients = gradients_of(values, labels, ms.Tensor(scale, ms.float32))
        gradients = _overflowing(gradients, log)
        finite = bool(amp.all_finite(gradients))
        if by_cell:
            cell(sense, ms.Tensor(not finite))
        else:
            manager.update_loss_scale(not finite)
        if finite:
            optimizer(tuple(gradient / scale for gradient in gradients))
        return loss

    if by_cell:
        return update, {"loss_scale": sense, "loss_scale_update": cell}
    return update, {"scaler": manager}


def _overflowing(gradients: tuple[Any, ...], log: SampleLog) -> tuple[Any, ...]:
    """Infinite at some batches of the model's life, an epoch's last one among them."""
    if len(log.ids) // 2 % 9 not in (0, 4):
        return gradients
    return tuple(gradient * float("inf") for gradient in gradients)


# What tests do with it.


def processes() -> ForkServerContext:
    """Processes that have imported MindSpore already: a kill costs tenths of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "onward.training.session", "onward.data.mindspore"])
    return context


def run_process(output: Path, scenario: Scenario, *, timeout_s: float = 120, **options: Any) -> int:
    """One process to its end; its exit code, negative for a signal."""
    return run_in_process(train, str(output), scenario, timeout_s=timeout_s, **options)


def run_in_process(
    function: Callable[..., None], *arguments: Any, timeout_s: float = 120, **options: Any
) -> int:
    """A process that ends of itself, or is ended, with every thread's stack on stderr."""
    process = processes().Process(
        target=function, args=arguments, kwargs={**options, "timeout_s": timeout_s}, daemon=False
    )
    process.start()
    process.join(timeout_s + 20)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError("the process hangs")
    return process.exitcode
