"""Measures what checkpointing costs, for Onward and its peers, in one interleaved run.

    python -m benchmarks.checkpointing [--scenario a b c d m] [--peers NAME …] [--repetitions 5]
        [--restored N] [--saves N] [--scale 0.1] [--json FILE] [--folder DIR] [--quick]

Each library, scenario and repetition has processes of its own, one after another; every repetition
begins with another library. Definitions and results: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.checkpointing.report import console
from benchmarks.checkpointing.results import Measured, Results
from benchmarks.checkpointing.scenarios import SCENARIOS, USUAL
from benchmarks.checkpointing.subjects import NAMES, OF_MINDSPORE, OURS
from benchmarks.measuring import machine

PEERS = {
    "a": [name for name in NAMES if name not in (OURS, *OF_MINDSPORE)],
    "b": ["dcp", "torch.save"],
    "c": ["dcp", "dcp-overlap", "torch_checkpointing"],
    "d": ["dcp"],
    "m": list(OF_MINDSPORE),
}
"""Who runs by default. All is compared in (a) and (m); elsewhere those who could be best."""

PACKAGES = (
    "torch", "numpy", "safetensors", "torch_checkpointing", "orbax-checkpoint", "lightning",
    "mindspore",
)  # fmt: skip
_TIMEOUT_S = 900


def main() -> None:
    arguments = _arguments()
    results = Results(
        machine=machine(),
        command=_command(sys.argv[1:]),
        repetitions=arguments.repetitions,
        scale=arguments.scale,
        versions=_versions(),
    )
    print(f"{results.machine}; {results.versions}", flush=True)
    with tempfile.TemporaryDirectory(prefix="checkpointing-", dir=arguments.folder) as folder:
        _Run(arguments, results, Path(folder)).all()
    print(console(results))
    if results.wrong() or results.failed:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpointing")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(USUAL))
    parser.add_argument("--peers", nargs="*", choices=NAMES, help="in every scenario")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--restored", type=int, help="repetitions that also restore; usually all")
    parser.add_argument("--saves", type=int, help="per process; by default each scenario's own")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 100 M parameters in (a)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; 15 GB are needed")
    parser.add_argument("--quick", action="store_true", help="small, once: does it run?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.scale, arguments.repetitions, arguments.saves = 0.02, 1, 4
    if arguments.saves is not None and arguments.saves < 3:
        parser.error("--saves must be 3 or more: the first save is reported apart")
    return arguments


def _command(words: list[str]) -> str:
    """What was asked for, without where this machine keeps things."""
    places = {"--json", "--folder"}
    pairs = zip(["", *words], words, strict=False)
    kept = [word for before, word in pairs if not places & {before, word}]
    return shlex.join(["python", "-m", "benchmarks.checkpointing", *kept])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Run:
    """One after another, each in a fresh process."""

    def __init__(self, arguments: argparse.Namespace, results: Results, folder: Path) -> None:
        self._arguments = arguments
        self._results = results
        self._folder = folder
        self._began = time.monotonic()

    def all(self) -> None:
        for repetition in range(self._arguments.repetitions):
            self._limits()
            for scenario in self._arguments.scenario:
                for name in self._order(scenario, repetition):
                    if name not in self._results.unavailable:
                        self._measure(name, scenario, repetition)
            if self._arguments.json:  # a run that is stopped keeps what it has
                self._results.write(self._arguments.json)

    def _order(self, scenario: str, repetition: int) -> list[str]:
        asked = self._arguments.peers
        names = [OURS, *(PEERS[scenario] if asked is None else [n for n in asked if n != OURS])]
        first = repetition % len(names)
        return names[first:] + names[:first]

    def _measure(self, name: str, scenario: str, repetition: int) -> None:
        place = self._folder / "outputs"
        asked = ["--subject", name, "--scenario", scenario, "--folder", str(place)]
        saves = self._arguments.saves or SCENARIOS[scenario].saves
        try:
            saved = self._process("worker", "save", *asked, "--saves", str(saves))
            if "unavailable" in saved:
                self._results.unavailable[name] = saved["unavailable"]
                self._say(f"{name}: not available: {saved['unavailable']}")
                return
            one = Measured(name, scenario, repetition, saved)
            restored = self._arguments.restored
            for variant in saved["variants"] if restored is None or repetition < restored else ():
                more = ["--last", str(saved["last"]), "--variant", variant]
                one.restored[variant] = self._process("worker", "restore", *asked, *more)
        except _Failed as error:
            self._results.failed.append(
                f"{name} ({scenario}), repetition {repetition + 1}: {error}"
            )
            self._say(f"{name} ({scenario}) FAILED: {error}")
            return
        finally:
            shutil.rmtree(place, ignore_errors=True)
        self._results.measured.append(one)
        stalls = ", ".join(f"{value:.3g}" for value in saved["stall_s"])
        self._say(f"{name} ({scenario}): stall {stalls} s{'' if one.right else ', restored WRONG'}")

    def _limits(self) -> None:
        found = self._process(
            "limits", "--folder", str(self._folder / "limits"),
            "--scenario", self._arguments.scenario[0],
        )  # fmt: skip
        self._results.limits.append(found)
        self._say(
            f"limits: copy {found['copy_s']:.3g} s, write {found['write_s']:.3g} s, "
            f"read {found['read_s']:.3g} s for {found['bytes'] / 1e9:.3g} GB"
        )

    def _process(self, module: str, *words: str) -> dict[str, Any]:
        command = [
            sys.executable, "-m", f"benchmarks.checkpointing.{module}", *words,
            "--scale", str(self._arguments.scale),
        ]  # fmt: skip
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        ) as process:
            try:
                out, err = process.communicate(timeout=_TIMEOUT_S)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that a library started
                if isinstance(error, subprocess.TimeoutExpired):
                    raise _Failed(f"no answer in {_TIMEOUT_S} s") from None
                raise
        lines = out.splitlines()
        if process.returncode or not lines:
            raise _Failed((err.strip().splitlines() or ["it said nothing"])[-1])
        answer = json.loads(lines[-1])
        assert isinstance(answer, dict)
        return answer

    def _say(self, text: str) -> None:
        spent = time.monotonic() - self._began
        number = len(self._results.limits)
        print(f"{spent:7.0f} s  {number}/{self._arguments.repetitions}  {text}", flush=True)


class _Failed(Exception):
    """A process that did not answer."""


if __name__ == "__main__":
    main()
