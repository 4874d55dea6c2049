"""Tensors of several parts, written by hand as a later Onward may write them, read by this one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onward.errors import Damaged
from onward.repository import Repository, filling, open_repository, read_state, verify
from onward.repository.documents import digest_of
from onward.stores import FaultPlan, Faulty, MemoryStore
from tests.repository.forging import forge_manifest
from tests.repository.outputs import facts, going_on, leaf, new_output, opened, plain, scaled

Array = npt.NDArray[Any]
Part = dict[str, Any]

_PIECES = [(8 << 20, 1 << 20), (100, 64), (1, 1), (7, 1000), (1000, 7), (1 << 20, 0)]
"""Lengths of a piece, and of what is short: together, taken apart, or both."""


class Workshop:
    """Stores arrays, then makes a manifest in which one tensor has parts made of them."""

    def __init__(self, *, packs: int = 1, seed: int = 0) -> None:
        self._pieces: list[Array] = []
        self._packs = packs
        self._random = random.Random(seed)
        self.store = MemoryStore()

    def piece(self, array: Array) -> int:
        self._pieces.append(np.ascontiguousarray(array))
        return len(self._pieces) - 1

    def make(
        self, whole: Array, parts: Callable[[Callable[[int], Part]], list[Part]], **more: Any
    ) -> Repository:
        """An output whose checkpoint holds `whole` as the tensor `t`, in these parts."""
        writer = new_output(self.store).claim("writer")
        names = [f"p{number}" for number in range(len(self._pieces))]
        tree: dict[str, Any] = {}
        for pack in range(self._packs):  # each save adds pieces, in a pack of its own
            for number in range(pack, len(names), self._packs):
                tree[names[number]] = leaf(self._pieces[number], identity=number)
            writer.commit(tree, facts(pack))

        def assemble(manifest: dict[str, Any]) -> None:
            ranges = {t["path"]: t["parts"][0]["range"] for t in manifest["tensors"]}
            description = leaf(whole)
            manifest["tensors"].append(
                {"path": "t", "kind": "numpy", "dtype": description.dtype,
                 "shape": list(whole.shape), "digest": digest_of(whole.tobytes()),
                 "parts": parts(lambda number: ranges[names[number]]), **more}
            )  # fmt: skip
            manifest["state"] = {"t": {"$tensor": len(manifest["tensors"]) - 1}}

        forge_manifest(self.store, assemble)
        return opened(self.store)


def _restored(repository: Repository, **options: Any) -> Any:
    latest = repository.history.latest()
    assert latest is not None
    return read_state(repository.store, repository.manifest(latest), **options)


def _is(repository: Repository, whole: Array) -> None:
    assert plain(_restored(repository)) == plain({"t": leaf(whole)})
    live = leaf(np.zeros_like(whole))
    assert plain(_restored(repository, into={"t": live})) == plain({"t": leaf(whole)})
    assert plain(live) == plain(leaf(whole)), "it was read into live memory"
    assert verify(repository, every_byte=True).intact


def _blocks(shape: tuple[int, ...], chosen: random.Random) -> list[tuple[slice, ...]]:
    """A partition of an array into blocks, by cutting at random."""
    blocks = [tuple(slice(0, extent) for extent in shape)]
    for _ in range(chosen.randrange(6)):
        block = blocks.pop(chosen.randrange(len(blocks)))
        axis = chosen.randrange(len(shape))
        start, stop = block[axis].start, block[axis].stop
        if stop - start < 2:
            blocks.append(block)
            continue
        cut = chosen.randrange(start + 1, stop)
        for piece in (slice(start, cut), slice(cut, stop)):
            blocks.append((*block[:axis], piece, *block[axis + 1 :]))
    chosen.shuffle(blocks)
    return blocks


@pytest.mark.parametrize("seed", range(scaled(40, 2000)))
def test_any_mixture_of_regions_and_rows(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Blocks from any number of packs give the tensor; patches replace rows, later ones win."""
    chosen = random.Random(seed)
    piece, small = _PIECES[seed % len(_PIECES)]
    monkeypatch.setattr(filling, "_PIECE_BYTES", piece)
    monkeypatch.setattr(filling, "_SMALL_BYTES", small)
    numbers = np.random.default_rng(seed)
    shape = tuple(chosen.randrange(1, 7) for _ in range(chosen.randrange(1, 4)))
    dtype = chosen.choice(["float32", "int64", "uint8", "bool", "complex128", "float16"])

    def values(*extent: int) -> Array:
        size = int(np.prod(extent)) * np.dtype(dtype).itemsize
        data = numbers.integers(0, 2, size, dtype=np.uint8)
        return data.view(dtype).reshape(extent)

    workshop = Workshop(packs=chosen.randrange(1, 4), seed=seed)
    whole = values(*shape)
    makers: list[Callable[[Callable[[int], Part]], Part]] = []
    if chosen.random() < 0.3:
        number = workshop.piece(whole)
        makers.append(lambda ranges, n=number: {"part": "full", "range": ranges(n)})
    else:
        for block in _blocks(shape, chosen):
            number = workshop.piece(whole[block])
            start, extent = [s.start for s in block], [s.stop - s.start for s in block]
            makers.append(
                lambda ranges, n=number, s=start, e=extent: {
                    "part": "region", "start": s, "shape": e, "range": ranges(n),
                }
            )  # fmt: skip
    whole = whole.copy()
    for _ in range(chosen.randrange(3)):
        count = chosen.randrange(1, shape[0] + 1)
        rows = np.array(sorted(chosen.sample(range(shape[0]), count)), dtype=np.int64)
        patch = values(count, *shape[1:])
        whole[rows] = patch
        index, new = workshop.piece(rows), workshop.piece(patch)
        makers.append(
            lambda ranges, c=count, i=index, n=new: {
                "part": "rows", "count": c, "index": ranges(i), "rows": ranges(n),
            }
        )  # fmt: skip
    if _uses_something_twice(workshop):
        return
    _is(workshop.make(whole, lambda ranges: [make(ranges) for make in makers]), whole)


def _uses_something_twice(workshop: Workshop) -> bool:
    """Equal pieces are stored once, and no tensor may use one range twice."""
    seen = {(str(p.dtype), p.shape, p.tobytes()) for p in workshop._pieces}
    return len(seen) < len(workshop._pieces)


def test_scalar_as_a_region() -> None:
    """A tensor without dimensions is one region without numbers."""
    workshop = Workshop()
    whole = np.array(2.5)
    number = workshop.piece(whole)
    parts = lambda ranges: [{"part": "region", "start": [], "shape": [], "range": ranges(number)}]  # noqa: E731
    _is(workshop.make(whole, parts), whole)


def test_patch_of_no_rows() -> None:
    """It changes nothing."""
    workshop = Workshop()
    whole = np.arange(12.0).reshape(3, 4)
    number = workshop.piece(whole)

    def parts(ranges: Callable[[int], Part]) -> list[Part]:
        empty = {**ranges(number), "size": 0, "digest": digest_of(b"")}
        patch = {"part": "rows", "count": 0, "index": empty, "rows": empty}
        return [{"part": "full", "range": ranges(number)}, patch]

    _is(workshop.make(whole, parts), whole)


@pytest.mark.parametrize("numbers", [[2, 1], [1, 1], [-1, 2], [1, 4], [1 << 62, (1 << 63) - 1]])
@pytest.mark.parametrize(("piece", "small"), _PIECES)
def test_bad_row_numbers(
    monkeypatch: pytest.MonkeyPatch, numbers: list[int], piece: int, small: int
) -> None:
    """Numbers that do not ascend within the tensor are found, in whatever pieces they come."""
    monkeypatch.setattr(filling, "_PIECE_BYTES", piece)
    monkeypatch.setattr(filling, "_SMALL_BYTES", small)
    workshop = Workshop()
    base = np.zeros((4, 2))
    b, i, p = (workshop.piece(each) for each in (base, np.array(numbers), np.ones((2, 2))))

    def parts(ranges: Callable[[int], Part]) -> list[Part]:
        patch = {"part": "rows", "count": 2, "index": ranges(i), "rows": ranges(p)}
        return [{"part": "full", "range": ranges(b)}, patch]

    repository = workshop.make(base, parts, digest=None)
    with pytest.raises(Damaged, match="tensor t has a row patch with bad row numbers"):
        _restored(repository)


def test_tensor_without_a_digest() -> None:
    """It may lack one where it was never whole in memory: each part has its own."""
    workshop = Workshop()
    base, rows = np.zeros((4, 2)), np.array([1, 3])
    patch = np.ones((2, 2))
    b, i, p = workshop.piece(base), workshop.piece(rows), workshop.piece(patch)
    whole = base.copy()
    whole[rows] = patch

    def parts(ranges: Callable[[int], Part]) -> list[Part]:
        return [
            {"part": "full", "range": ranges(b)},
            {"part": "rows", "count": 2, "index": ranges(i), "rows": ranges(p)},
        ]

    _is(workshop.make(whole, parts, digest=None), whole)


def test_parts_that_do_not_give_the_digest() -> None:
    """Each part may be whole and the tensor wrong: then it is `Damaged`, and named."""
    workshop = Workshop()
    first, second = workshop.piece(np.zeros((2, 3))), workshop.piece(np.ones((1, 3)))

    def parts(ranges: Callable[[int], Part]) -> list[Part]:
        return [
            {"part": "region", "start": [0, 0], "shape": [2, 3], "range": ranges(first)},
            {"part": "region", "start": [2, 0], "shape": [1, 3], "range": ranges(second)},
        ]

    repository = workshop.make(np.full((3, 3), 7.0), parts)
    with pytest.raises(Damaged, match="tensor t is damaged: its parts"):
        _restored(repository)
    assert "tensor t is damaged" in str(verify(repository, every_byte=True).damaged)
    assert verify(repository).intact


def _sharded() -> tuple[Workshop, Repository, Array]:
    workshop = Workshop()
    whole = np.arange(24.0).reshape(4, 6)
    top, bottom = workshop.piece(whole[:1]), workshop.piece(whole[1:])

    def parts(ranges: Callable[[int], Part]) -> list[Part]:
        return [
            {"part": "region", "start": [0, 0], "shape": [1, 6], "range": ranges(top)},
            {"part": "region", "start": [1, 0], "shape": [3, 6], "range": ranges(bottom)},
        ]

    return workshop, workshop.make(whole, parts), whole


def test_unchanged_tensor_of_several_parts() -> None:
    """A later checkpoint names the same parts and stores nothing."""
    workshop, repository, whole = _sharded()
    commit = going_on(repository).commit({"t": leaf(whole)}, facts(9))
    assert commit.stored == 0
    _is(open_repository(workshop.store), whole)


def test_same_bytes_in_another_shape() -> None:
    """Parts fit one shape: the same bytes in another are stored anew, or nobody could read them."""
    workshop, repository, whole = _sharded()
    commit = going_on(repository).commit({"t": leaf(whole.reshape(8, 3))}, facts(9))
    assert commit.stored > whole.nbytes
    _is(open_repository(workshop.store), whole.reshape(8, 3))


@pytest.mark.parametrize(("piece", "small"), _PIECES)
def test_reading_in_pieces_of_any_size(
    monkeypatch: pytest.MonkeyPatch, piece: int, small: int
) -> None:
    """How ranges are put together and taken apart for reading does not show."""
    monkeypatch.setattr(filling, "_PIECE_BYTES", piece)
    monkeypatch.setattr(filling, "_SMALL_BYTES", small)
    store = MemoryStore()
    repository = new_output(store)
    numbers = np.random.default_rng(0)
    tree = {f"t{n}": leaf(numbers.integers(0, 9, n * 5, dtype=np.int16)) for n in range(20)}
    repository.claim("writer").commit(tree, facts(1))
    assert plain(_restored(repository)) == plain(tree)


def test_reading_some_entries() -> None:
    """Only what is needed for the named entries is read, and every byte is told to `progress`."""
    store = MemoryStore()
    repository = new_output(store)
    tree = {"small": leaf(np.arange(10)), "large": leaf(np.arange(10_000)), "n": 5}
    commit = repository.claim("writer").commit(tree, facts(1))
    manifest = repository.manifest(commit)
    progress: list[int] = []
    found = read_state(store, manifest, keys=["small", "n", "none"], progress=progress.append)
    assert plain(found) == plain({"small": tree["small"], "n": 5})
    assert progress == [80]


def test_many_small_tensors_are_read_together() -> None:
    """A checkpoint of a thousand small tensors costs a few requests."""
    store = MemoryStore()
    repository = new_output(store)
    tree = {f"t{n}": leaf(np.full(10, n)) for n in range(1000)}
    commit = repository.claim("writer").commit(tree, facts(1))
    plan = FaultPlan()
    found = read_state(Faulty(store, plan), repository.manifest(commit))
    assert plain(found) == plain(tree)
    assert plan.count() <= 4
