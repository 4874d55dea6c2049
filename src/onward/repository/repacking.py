"""Repacking: what little is still needed of a pack moves to a new one, and the old one goes.

Bytes are copied as they are, range by range, each verified on the way. Parts stay what they are:
row patches of one tensor share its base with other checkpoints, which whole copies would not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import numpy as np

from onward.errors import Damaged, Indeterminate, Missing, StoreError
from onward.frameworks.base import TensorLeaf
from onward.repository.collecting import Collector
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.manifest import (
    Full,
    Manifest,
    PackRef,
    Part,
    Range,
    Region,
    Rows,
    Tensor,
    manifest_bytes,
    manifest_key,
    parse_manifest,
)
from onward.repository.packs import Hashing, pack_key, plan_pack, whole
from onward.repository.records import (
    AnyRecord,
    Commit,
    ManifestPlace,
    Repack,
    new_hex32,
    new_manifest_name,
    now,
)

# Below this share of live bytes, each byte that is rewritten frees at least one and a half.
LIVE_SHARE = 0.4
_PACK_BYTES = 1 << 30  # of a new pack, unless one tensor is larger: it is made in memory
_MANIFESTS_AT_ONCE = _PACKS_AT_ONCE = 1000  # so that a record keeps within its length
_DOCUMENTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Sparse:
    """A pack of which live checkpoints use little."""

    pack: str
    size_bytes: int
    live_bytes: int


@dataclass(slots=True)
class Repacked:
    """What a repack did. `refused` maps packs that stay as they are to the reason: damage.

    The old packs are condemned; their bytes are freed by the next sweep.
    """

    packs: list[str] = field(default_factory=list)
    checkpoints: int = 0
    written_bytes: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Repacker:
    """Rewrites sparse packs of one repository. Claims nothing, and disturbs no reader or writer."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._repository = collector.repository
        self._store = collector.repository.store

    def sparse(self, *, without: Collection[str] = ()) -> list[Sparse]:
        """The packs that a repack would rewrite, were the checkpoints `without` not there.

        Raises `Damaged` where a manifest does not tell what it needs.
        """
        live = self._repository.refresh().live()
        used: dict[str, set[tuple[int, int]]] = defaultdict(set)
        sizes: dict[str, int] = {}
        dense: set[str] = set()
        for manifest in self._manifests([c for c in live if c.checkpoint not in without]):
            own: dict[str, set[tuple[int, int]]] = defaultdict(set)
            for tensor in manifest.tensors:
                for found in tensor.ranges():
                    own[found.pack].add((found.offset, found.size))
            for pack, places in own.items():
                sizes[pack] = manifest.packs[pack].size
                if pack not in dense:
                    used[pack] |= places
                if _sum(used.get(pack, places)) >= LIVE_SHARE * sizes[pack]:
                    dense.add(pack)
                    used.pop(pack, None)  # never looked at again: there may be very many
        candidates = [Sparse(pack, sizes[pack], _sum(places)) for pack, places in used.items()]
        return [c for c in candidates if c.live_bytes < LIVE_SHARE * self._data_bytes(c)]

    def repack(self) -> Repacked:
        """Rewrites them. A crash anywhere leaves the old state or the new one, and leftovers.

        What is left to do when somebody claims the output or repacks it meanwhile is left undone.
        """
        waiting = iter(self.sparse())
        done = Repacked()
        while some := {each.pack: each for each in islice(waiting, _PACKS_AT_ONCE)}:
            if not self._repack(some, done):
                break
        return done

    def _repack(self, sparse: dict[str, Sparse], done: Repacked) -> bool:
        attempt = _Attempt(self._collector, sparse, self._users(sparse))
        try:
            attempt.carry_out(done)
        except _Overtaken:
            attempt.clean_up()
            return False
        except Indeterminate:
            raise  # the record may exist, and name everything
        except Exception:
            with suppress(StoreError):
                attempt.clean_up()
            raise
        attempt.clean_up()
        return True

    def _users(self, packs: Iterable[str]) -> list[Commit]:
        wanted = set(packs)
        live = self._repository.history.live()
        reach = self._collector.reach.of(live)
        return [commit for commit in live if not wanted.isdisjoint(reach[commit.checkpoint])]

    def _manifests(self, commits: list[Commit]) -> Iterator[Manifest]:
        waiting = iter(commits)
        with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE) as pool:
            while some := list(islice(waiting, _DOCUMENTS_AT_ONCE)):
                yield from pool.map(self._repository.manifest, some)

    def _data_bytes(self, sparse: Sparse) -> int:
        """The bytes of a pack behind its header, which no rewriting can save."""
        try:
            length = self._store.read(pack_key(sparse.pack), 0, 8)
        except Missing:
            return 0  # `verify` says so
        return max(0, sparse.size_bytes - 8 - int.from_bytes(length, "little"))


class _Attempt:
    """One repack: everything that it stores, until a record names it."""

    def __init__(
        self, collector: Collector, sparse: dict[str, Sparse], users: list[Commit]
    ) -> None:
        self._collector = collector
        self._repository = collector.repository
        self._store = collector.repository.store
        self._sparse = sparse
        history = collector.repository.history
        self._generation = history.generation
        self._users = users
        self._old_places = {c.checkpoint: history.manifest_place(c) for c in users}
        self._moved: dict[Range, Range] = {}
        self._refs: dict[str, PackRef] = {}
        self._new_places: dict[str, ManifestPlace] = {}
        self._needed: dict[str, set[str]] = {}  # new packs of each new manifest
        self._recorded: set[str] = set()  # the checkpoints whose new manifest counts

    def carry_out(self, done: Repacked) -> None:
        self._copy(done.refused)
        for commit in self._users:
            self._write_manifest(commit)
        condemned = [pack for pack in self._sparse if pack not in done.refused]
        waiting = iter(list(self._new_places))
        some = list(islice(waiting, _MANIFESTS_AT_ONCE))
        while some:
            rest = list(islice(waiting, _MANIFESTS_AT_ONCE))
            # Only when all manifests are replaced does nobody need the old packs.
            record = self._append(some, [] if rest else condemned)
            done.packs += record.packs
            some = rest
        done.checkpoints += len(self._recorded)
        done.written_bytes += sum(ref.size for ref in self._refs.values())

    def clean_up(self) -> None:
        """Deletes what no record names: nobody else can know these names."""
        for id_, place in self._new_places.items():
            if id_ not in self._recorded:
                self._store.delete(manifest_key(place.name))
        needed = {pack for id_ in self._recorded for pack in self._needed[id_]}
        for pack in self._refs.keys() - needed:
            self._store.delete(pack_key(pack))

    # Copying.

    def _copy(self, refused: dict[str, str]) -> None:
        batch: list[tuple[Range, str, TensorLeaf]] = []
        size_bytes = 0
        for pack, pieces in self._pieces().items():
            for piece in pieces:
                if pack in refused:
                    break
                try:
                    leaf = self._read(piece)
                except Damaged as error:
                    refused[pack] = error.sentence()
                    break
                if batch and size_bytes + leaf.size_bytes > _PACK_BYTES:
                    self._write_pack(batch)
                    batch, size_bytes = [], 0
                batch.append((piece.range, piece.path, leaf))
                size_bytes += leaf.size_bytes
        batch = [each for each in batch if each[0].pack not in refused]
        if batch:
            self._write_pack(batch)
        self._moved = {old: new for old, new in self._moved.items() if old.pack not in refused}

    def _pieces(self) -> dict[str, list[_Piece]]:
        """What is to be copied of each pack, in the order in which it lies there."""
        pieces: dict[Range, _Piece] = {}
        for commit in self._users:
            for tensor in self._repository.manifest(commit).tensors:
                for piece in _pieces_of(tensor):
                    if piece.range.pack in self._sparse:
                        pieces.setdefault(piece.range, piece)
        by_pack: dict[str, list[_Piece]] = defaultdict(list)
        for piece in sorted(pieces.values(), key=lambda piece: piece.range.place):
            by_pack[piece.range.pack].append(piece)
        return by_pack

    def _read(self, piece: _Piece) -> TensorLeaf:
        found = piece.range
        try:
            data = self._store.read(pack_key(found.pack), found.offset, found.size)
        except Missing as error:
            raise Damaged(f"tensor {piece.path} is missing", why="its pack is gone") from error
        if len(data) != found.size or digest_of(data) != found.digest:
            raise Damaged(f"tensor {piece.path} is damaged", why="its bytes were changed")
        array = np.frombuffer(data, dtype=np.uint8)
        return TensorLeaf(piece.dtype, piece.shape, "numpy", array)

    def _write_pack(self, batch: list[tuple[Range, str, TensorLeaf]]) -> None:
        name = new_hex32()
        plan = plan_pack(name, [whole(path, leaf, old.digest) for old, path, leaf in batch])
        hashing = Hashing(plan)
        self._refs[name] = PackRef(plan.size_bytes, "")  # so that it is cleaned up if it is cut off
        self._store.put(pack_key(name), hashing, plan.size_bytes)
        self._refs[name] = hashing.ref()
        for (old, _, _), new in zip(batch, hashing.ranges(), strict=True):
            self._moved[old] = new

    # Manifests and the record.

    def _write_manifest(self, commit: Commit) -> None:
        manifest = moved_manifest(self._repository.manifest(commit), self._moved, self._refs)
        if manifest is None:
            return
        data = manifest_bytes(manifest)
        parse_manifest(data, commit.checkpoint)
        name = new_manifest_name(commit.checkpoint)
        self._new_places[commit.checkpoint] = ManifestPlace(name, digest_of(data), len(data))
        self._needed[commit.checkpoint] = manifest.packs.keys() & self._refs.keys()
        self._store.put(manifest_key(name), [data], len(data))

    def _append(self, ids: list[str], condemned: list[str]) -> Repack:
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            if history.generation != self._generation:
                raise _Overtaken
            live = [id_ for id_ in ids if id_ not in history.dropped]
            for id_ in live:
                if history.manifest_place(history.commits[id_]) != self._old_places[id_]:
                    raise _Overtaken
            packs = self._unneeded(history, condemned)
            return Repack(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation, time=now(), prev=history.head_digest,
                manifests={id_: self._new_places[id_] for id_ in live}, packs=packs,
            )  # fmt: skip

        while True:
            try:
                record = self._repository.append(build)
            except Damaged:
                # Perhaps only dropped by somebody else while its manifest was to be read.
                if not self._repository.log.refresh():
                    raise
            else:
                assert isinstance(record, Repack)
                self._recorded.update(record.manifests)
                return record

    def _unneeded(self, history: History, condemned: list[str]) -> list[str]:
        """Those of the old packs that no checkpoint saved meanwhile uses."""
        if not condemned:
            return []
        others = [c for c in history.live() if c.checkpoint not in self._new_places]
        reach = self._collector.reach.of(others)
        needed = {pack for packs in reach.values() for pack in packs}
        return [pack for pack in condemned if pack not in needed]


def moved_manifest(
    manifest: Manifest, moved: dict[Range, Range], refs: dict[str, PackRef]
) -> Manifest | None:
    """The manifest with its ranges elsewhere, in packs of `refs`; None if none of them moved."""
    if not any(found in moved for tensor in manifest.tensors for found in tensor.ranges()):
        return None
    tensors = [
        msgspec.structs.replace(tensor, parts=[_moved_part(part, moved) for part in tensor.parts])
        for tensor in manifest.tensors
    ]
    used = dict.fromkeys(found.pack for tensor in tensors for found in tensor.ranges())
    packs = {pack: refs.get(pack) or manifest.packs[pack] for pack in used}
    return msgspec.structs.replace(manifest, tensors=tensors, packs=packs)


def _moved_part(part: Part, moved: dict[Range, Range]) -> Part:
    if isinstance(part, Rows):
        index, rows = moved.get(part.index, part.index), moved.get(part.rows, part.rows)
        return msgspec.structs.replace(part, index=index, rows=rows)
    return msgspec.structs.replace(part, range=moved.get(part.range, part.range))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range with what a pack's header says of it."""

    range: Range
    path: str
    dtype: str
    shape: tuple[int, ...]


def _pieces_of(tensor: Tensor) -> Iterator[_Piece]:
    for part in tensor.parts:
        match part:
            case Full():
                yield _Piece(part.range, tensor.path, tensor.dtype, tuple(tensor.shape))
            case Region():
                yield _Piece(part.range, tensor.path, tensor.dtype, tuple(part.shape))
            case Rows():
                shape = (part.count, *tensor.shape[1:])
                yield _Piece(part.index, f"{tensor.path}#index", "I64", (part.count,))
                yield _Piece(part.rows, f"{tensor.path}#rows", tensor.dtype, shape)


def _sum(places: set[tuple[int, int]]) -> int:
    return sum(size for _, size in places)


class _Overtaken(Exception):
    """Somebody claimed the output, or moved the same manifests, before this repack's record."""
