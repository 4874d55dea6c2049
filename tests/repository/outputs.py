"""Small outputs for tests: states to save, fresh looks at what is stored, clocks without time."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.frameworks.base import Tagged, TensorLeaf
from onward.repository import Commit, Facts, Repository, Writer, open_repository, read_state, verify
from onward.repository.log import Log
from onward.stores import MemoryStore, Store

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"

_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "float16": "F16",
    "uint32": "U32", "int32": "I32", "float32": "F32", "uint64": "U64", "int64": "I64",
    "float64": "F64", "complex64": "C64", "complex128": "C128",
}  # fmt: skip


def scaled(few: int, many: int) -> int:
    """`few`, or `many` with ONWARD_TEST_SCALE=full."""
    return many if FULL else few


def leaf(array: npt.ArrayLike, *, identity: object = None) -> TensorLeaf:
    """A tensor of a state tree."""
    whole = np.array(array, order="C")
    data = whole.reshape(-1).view(np.uint8)
    return TensorLeaf(_DTYPES[str(whole.dtype)], whole.shape, "numpy", data, identity=identity)


def facts(step: int, parent: Commit | None = None, **more: Any) -> Facts:
    """What a checkpoint is about, as short as it can be said."""
    usual = Facts(
        step=step, epoch=0, increment=1, parent=parent.checkpoint if parent else None,
        finished=False, reason="test", verb="fresh", framework="numpy", framework_version="2",
    )  # fmt: skip
    return replace(usual, **more)


def state(step: int) -> dict[str, Any]:
    """Of the state at one step, `frozen` never changes, `weights` always does."""
    return {
        "model": {
            "frozen": leaf(np.arange(12, dtype=np.float32).reshape(3, 4)),
            "weights": leaf(np.full(7, step, dtype=np.float32)),
        },
        "optimizer": {"step": step, 0: (1e-3, float("nan"), -0.0), "betas": None},
    }


def plain(tree: Any) -> Any:
    """`tree` with everything in it that `==` takes too lightly made visible: types, bits, order."""
    if isinstance(tree, TensorLeaf):
        data = None if tree.data is None else bytes(tree.data)
        return ("tensor", tree.kind, tree.dtype, tuple(tree.shape), data)
    if isinstance(tree, Tagged):
        return ("tagged", tree.tag, plain(tree.value))
    if isinstance(tree, dict):
        return ("dict", [(plain(key), plain(child)) for key, child in tree.items()])
    if isinstance(tree, list | tuple):
        return (type(tree).__name__, [plain(child) for child in tree])
    if isinstance(tree, set | frozenset):
        return (type(tree).__name__, sorted((plain(child) for child in tree), key=repr))
    if isinstance(tree, np.generic):
        return ("numpy", tree.dtype.str, tree.tobytes())
    if type(tree) is complex:
        return ("complex", plain(tree.real), plain(tree.imag))
    if type(tree) is float:
        return ("float", struct.pack(">d", tree))
    return (type(tree).__name__, tree)


@dataclass(frozen=True)
class Picture:
    """All that a reader can find in an output, checkpoints by their step."""

    checkpoints: dict[int, Any] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    generation: int = 0

    def and_checkpoint(self, step: int, tree: Any) -> Picture:
        return replace(self, checkpoints={**self.checkpoints, step: plain(tree)})

    def without(self, step: int) -> Picture:
        kept = {number: tree for number, tree in self.checkpoints.items() if number != step}
        return replace(self, checkpoints=kept)


def look(store: Store) -> Picture:
    """What a fresh reader finds. Fails unless every live checkpoint is whole, byte for byte."""
    repository = open_repository(store)
    findings = verify(repository, every_byte=True)
    assert findings.damaged == {}
    history = repository.history
    checkpoints = {
        commit.step: plain(read_state(store, repository.manifest(commit)))
        for commit in history.live()
    }
    assert len(checkpoints) == len(history.live()) == findings.checkpoints
    aliases = {name: history.commits[id_].step for name, id_ in history.aliases.items()}
    return Picture(checkpoints, aliases, history.generation)


def save_next(store: Store) -> Commit:
    """A new writer takes over and saves once more, from the newest checkpoint on."""
    repository = Repository(store)
    repository.log.load()
    writer = repository.claim("the next writer")
    latest = repository.history.latest()
    if latest is not None:
        writer.base_on(repository.manifest(latest))
    step = max((commit.step for commit in repository.history.commits.values()), default=0) + 1000
    return writer.commit(state(step), facts(step, latest))


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def opened(store: Store, *, exclusive: bool = True, deadline_s: float = 60.0) -> Repository:
    """The repository at `store`, with a clock of its own: waiting takes no time."""
    clock = Clock()
    repository = Repository(store, exclusive=exclusive)
    repository.log = Log(
        store, exclusive=exclusive, deadline_s=deadline_s, clock=clock, sleep=clock.sleep
    )
    repository.log.load()
    return repository


def new_output(store: Store) -> Repository:
    """A repository made at an empty store, without the probe's many operations."""
    from onward.repository import repository as module

    repository = Repository(store)
    module._create(repository)
    return repository


@contextmanager
def quick_temporary_folder() -> Iterator[Path]:
    """A folder in memory where there is such a thing: thousands of outputs are made and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def copied(store: MemoryStore) -> MemoryStore:
    """Another store with the same objects."""
    other = MemoryStore("copy")
    other._objects = dict(store._objects)
    return other


def objects(store: Store) -> dict[str, bytes]:
    """Everything that is stored."""
    return {entry.key: store.read(entry.key) for entry in store.list("")}


def filled(objects: dict[str, bytes]) -> MemoryStore:
    """A store that holds exactly this."""
    store = MemoryStore("filled")
    for key, data in objects.items():
        store.create(key, data)
    return store


class Wrapped:
    """Another store, with what a test changes about it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        return self.store.url

    def create(self, key: str, data: bytes) -> None:
        self.store.create(key, data)

    def put(self, key: str, chunks: Any, size_bytes: int) -> None:
        self.store.put(key, chunks, size_bytes)

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        return self.store.read(key, start, size_bytes)

    def size(self, key: str) -> int:
        return self.store.size(key)

    def list(self, prefix: str) -> Iterator[Any]:
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        self.store.delete(key)


class Careless(Wrapped):
    """A store that takes create for put, as some bucket servers do."""

    def create(self, key: str, data: bytes) -> None:
        self.store.put(key, [data], len(data))


class RecordFirst(Wrapped):
    """A mistake: packs and manifests are stored after the record that makes them count."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._waiting: list[tuple[str, bytes]] = []

    def put(self, key: str, chunks: Any, size_bytes: int) -> None:
        self._waiting.append((key, b"".join(chunks)))

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        for waiting, content in self._waiting:
            super().put(waiting, [content], len(content))
        self._waiting.clear()


class Meanwhile(Wrapped):
    """Somebody else acts within the next create of a log record, before it reaches the store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.acts: list[Callable[[], object]] = []

    def create(self, key: str, data: bytes) -> None:
        if key.startswith("onward/log/"):
            while self.acts:
                self.acts.pop(0)()
        super().create(key, data)


def records_of(store: Store) -> list[str]:
    """The kinds of all records, as a fresh reader finds them."""
    log = Log(store)
    return [type(record).__name__.lower() for record in log.refresh(ahead=8)]


def with_three(store: Store) -> Repository:
    """An output with checkpoints at steps 1, 2 and 3, the first of them `champion`."""
    repository = new_output(store)
    writer = repository.claim("the first writer")
    commits: list[Commit] = []
    for step in (1, 2, 3):
        commits.append(writer.commit(state(step), facts(step, commits[-1] if commits else None)))
    repository.set_alias("champion", commits[0].checkpoint)
    return repository


def going_on(repository: Repository) -> Writer:
    """The writer that claimed last, on its newest checkpoint."""
    history = repository.history
    writer = repository.claim("", generation=history.generation, writer=history.writer)
    latest = history.latest()
    if latest is not None:
        writer.base_on(repository.manifest(latest))
    return writer


def at_step(repository: Repository, step: int) -> Commit:
    """The checkpoint of this step."""
    return next(c for c in repository.history.commits.values() if c.step == step)
