"""Which single flipped bits of a MindSpore checkpoint are noticed when it is loaded again.

    python -m benchmarks.mindspore_bit_flips [--every 1]

A small network, its Adam, randomness and a loader's position are trained for some steps and saved
by Onward, and, as far as that goes, by `save_checkpoint`. Then each bit of what was written is
flipped, one at a time (with `--every N` one bit of every Nth byte), and loaded by what a script
would load it with. Either that raises, or what was loaded is compared with what was saved; in a
forked process, because some flips make `load_checkpoint` write beyond its memory.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import onward
from onward.errors import OnwardError
from onward.frameworks import mindspore as framework
from onward.frameworks.base import TensorLeaf
from onward.repository import description, open_repository, read_state
from onward.stores import LocalStore, MemoryStore
from onward.training.live import OWN, RANDOMNESS

REFUSED, AS_SAVED, WRONG, CRASHED = "refused", "as saved", "other than saved", "crashed"
_LETTERS = {REFUSED: b"r", AS_SAVED: b"s", WRONG: b"w"}
_KINDS = {letter[0]: kind for kind, letter in _LETTERS.items()}

Files = Mapping[str, bytes]


class Training:
    """Three steps of an epoch of five, with a shuffled loader."""

    def __init__(self, seed: int = 1) -> None:
        ms.set_seed(seed)
        self.network = nn.SequentialCell(nn.Dense(8, 4), nn.Dropout(p=0.2), nn.Dense(4, 2))
        self.optimizer = nn.Adam(self.network.trainable_params(), 1e-2)
        self.train_net = nn.TrainOneStepCell(
            nn.WithLossCell(self.network, nn.CrossEntropyLoss()), self.optimizer
        )
        self.train_net.set_train()

    def train_in(self, folder: Path, *, steps: int = 3) -> None:
        """Saves with Onward in the middle of an epoch."""
        run = onward.open(str(folder), **self.objects(), save_every_seconds=None)
        loader = run.loader(_Items(), batch_size=4)
        for images, labels in loader:
            self.train_net(images, labels)
            run.step()
            if run.global_step == steps:
                run.save()
                break
        run.close()

    def objects(self) -> dict[str, Any]:
        return {"network": self.network, "optimizer": self.optimizer}

    def forget(self) -> None:
        """Makes every live tensor what no checkpoint holds."""
        for _, parameter in self.train_net.parameters_and_names():
            parameter.asnumpy()[...] = -7

    def values(self) -> dict[str, bytes]:
        """All that is live, bit for bit."""
        return {
            name: parameter.asnumpy().tobytes()
            for name, parameter in self.train_net.parameters_and_names()
        }


class _Items:
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return np.random.default_rng(index).normal(size=8).astype(np.float32), np.int32(index % 2)


class Ours:
    """An output that Onward wrote, read as `onward.open` reads it, into live objects."""

    def __init__(self, folder: Path) -> None:
        self.training = Training()
        self.training.train_in(folder)
        store = LocalStore(folder)
        self.files: Files = {entry.key: store.read(entry.key) for entry in store.list("")}
        self._right = self._load(self.files)
        self.saved = self.training.values()
        assert self._right[0] == self.saved

    def outcome(self, changed: Files) -> str:
        self.training.forget()
        try:
            found = self._load(changed)
        except OnwardError:
            return REFUSED
        return AS_SAVED if found == self._right else WRONG

    def _load(self, files: Files) -> tuple[dict[str, bytes], Any]:
        repository = open_repository(filled(files))
        newest = repository.history.latest()
        if newest is None:
            return {}, None
        manifest = repository.manifest(newest)
        objects = self.training.objects()
        described = {k: v for k, v in description(manifest).items() if k in objects}
        assert not framework.differences(objects, described)
        state = read_state(repository.store, manifest, into=framework.destinations(objects))
        rest = _plain({OWN: state.pop(OWN), RANDOMNESS: state.pop(RANDOMNESS)})
        framework.restore(objects, state)
        return self.training.values(), rest


class Theirs:
    """One file of `save_checkpoint`, loaded by `load_checkpoint` with the same options."""

    def __init__(self, folder: Path, *, form: str, crc: bool) -> None:
        self._file = folder / f"saved.{form}"
        self._options = {"format": form, "crc_check": crc}
        training = Training()
        training.train_in(folder / "output")
        ms.save_checkpoint(training.train_net, str(self._file), **self._options)
        self.files: Files = {self._file.name: self._file.read_bytes()}
        self._right = self._load()

    def outcome(self, changed: Files) -> str:
        (data,) = changed.values()
        os.chmod(self._file, 0o600)
        self._file.write_bytes(data)
        try:
            found = self._load()
        except Exception:  # whatever it is, it is noticed
            return REFUSED
        return AS_SAVED if found == self._right else WRONG

    def _load(self) -> Any:
        loaded = ms.load_checkpoint(str(self._file), **self._options)
        return {
            name: (str(parameter.dtype), parameter.shape, parameter.asnumpy().tobytes())
            for name, parameter in loaded.items()
        }


def flipped(files: Files, *, every: int = 0, within: str = "") -> Iterator[tuple[str, Files]]:
    """`files` with one bit flipped: each in turn, or with `every` one of each such byte."""
    for key, data in files.items():
        if within not in key:
            continue
        for at in range(0, len(data), every or 1):
            chosen = random.Random(f"{key}/{at}").randrange(8)
            for bit in [chosen] if every else range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                yield f"{key}, byte {at}, bit {bit}", {**files, key: bytes(changed)}


def outcomes(subject: Ours | Theirs, flips: Sequence[Files]) -> Counter[str]:
    """How each flip ended, in forked processes: another one goes on where one crashed."""
    found: Counter[str] = Counter()
    while found.total() < len(flips):
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            for files in flips[found.total() :]:
                os.write(sending, _LETTERS[subject.outcome(files)])
            os._exit(0)
        os.close(sending)
        with open(receiving, "rb") as answers:
            found.update(_KINDS[letter] for letter in answers.read())
        if os.waitpid(child, 0)[1] != 0:
            found[CRASHED] += 1
    return found


def filled(files: Files) -> MemoryStore:
    """A store with these objects and no others."""
    store = MemoryStore("flipped")
    for key, data in files.items():
        store.create(key, data)
    return store


def _plain(tree: Any) -> Any:
    match tree:
        case TensorLeaf():
            return tree.dtype, tree.shape, None if tree.data is None else tree.data.tobytes()
        case dict():
            return {key: _plain(value) for key, value in tree.items()}
        case list() | tuple():
            return [_plain(value) for value in tree]
    return repr(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=0, help="one bit of every so many bytes")
    every = parser.parse_args().every
    ms.set_context(pynative_synchronize=True)
    print("| | bytes | flips | refused | loaded as saved | loaded, not as saved | crashed |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, subject in _subjects(Path(folder)):
            flips = [files for _, files in flipped(subject.files, every=every)]
            found = outcomes(subject, flips)
            size = sum(map(len, subject.files.values()))
            counts = " | ".join(f"{found[kind]:,}" for kind in (REFUSED, AS_SAVED, WRONG, CRASHED))
            print(f"| {name} | {size:,} | {found.total():,} | {counts} |", flush=True)


def _subjects(folder: Path) -> Iterator[tuple[str, Ours | Theirs]]:
    yield "Onward", Ours(folder / "onward")
    for form in ("ckpt", "safetensors"):
        for crc in (False, True):
            place = folder / f"{form}-{crc}"
            place.mkdir()
            options = f"`format={form!r}`" + (", `crc_check=True`" if crc else "")
            yield f"MindSpore, {options}", Theirs(place, form=form, crc=crc)


if __name__ == "__main__":
    main()
