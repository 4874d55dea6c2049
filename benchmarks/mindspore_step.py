"""`run.step()` in MindSpore without a save: what the loop pays for being watched.

    python -m benchmarks.mindspore_step

Beside it the same loop bare, as MindSpore runs it by default, one repetition after the other.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn

import onward
from benchmarks.measuring import Result, machine

CALLS, STEPS, REPETITIONS = 2_000, 15, 5


def main() -> None:
    print(f"{machine()}, mindspore {ms.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        network = nn.SequentialCell(nn.Dense(64, 64), nn.ReLU(), nn.Dense(64, 4))
        optimizer = nn.Adam(network.trainable_params(), 1e-3)
        train = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run = onward.open(folder, network=network, optimizer=optimizer, save_every_seconds=None)
        images, labels = ms.Tensor(np.ones((32, 64), np.float32)), ms.Tensor([0, 1] * 16, ms.int32)

        def bare() -> None:
            train(images, labels)

        def waiting() -> None:
            train(images, labels)
            optimizer.global_step.asnumpy()

        def watched() -> None:
            train(images, labels)
            run.step()

        count = optimizer.global_step.asnumpy()  # its own memory

        def counted() -> None:
            count[...] += 1  # as an optimizer that steps does
            run.step()

        for _ in range(STEPS):  # kernels are ready, and
            watched()
        calls = [_seconds(counted, CALLS) / CALLS * 1e6 for _ in range(REPETITIONS)]
        loops = [[_seconds(loop, STEPS) for loop in (bare, waiting, watched)]
                 for _ in range(REPETITIONS)]  # fmt: skip
        run.close()
    for result in (
        Result("run.step() without a save, MindSpore", "µs", 20, tuple(calls)),
        Result("loop with run.step() / bare loop", "×", 1.05, tuple(w / b for b, _, w in loops)),
        Result("loop that waits for each step / bare loop", "×", 1.05,
               tuple(s / b for b, s, _ in loops)),
    ):  # fmt: skip
        print(result.line())
    print(f"a step of the bare loop: {min(b for b, _, _ in loops) / STEPS * 1e3:.0f} ms at best")


def _seconds(call: Callable[[], None], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
