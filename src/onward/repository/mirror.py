"""A working copy: the local repository beside an output on an object store.

The local log is a copy of the remote one, plus commits that are not pushed yet. The remote log is
the truth: a claim goes there first, and pushing appends the own commits to it in order. If an
alias or a drop of somebody else took the next slot there meanwhile, the own record follows it
under the next number; if a claim did, this writer is `Fenced`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from onward.errors import Conflict, Damaged, Fenced, Missing, NotAnOutput
from onward.repository.documents import digest_of
from onward.repository.fetching import fetch_pack
from onward.repository.history import History
from onward.repository.manifest import Manifest, PackRef, manifest_key
from onward.repository.packs import pack_key
from onward.repository.records import AnyRecord, Commit, record_key
from onward.repository.repository import Repository, open_or_create
from onward.repository.summary import SUMMARY_KEY, write_summary
from onward.repository.writer import Writer
from onward.stores.base import Chunk, Store
from onward.stores.local import LocalStore

_PUSH_CHUNK = 8 << 20

Progress = Callable[[int], None]


@dataclass(slots=True)
class Stranded:
    """Local commits that could not be pushed, because another writer took over before."""

    commits: list[Commit] = field(default_factory=list)
    taken_by: str = ""


class Mirror:
    """Keeps the local repository in `local` and the remote one in step."""

    def __init__(self, local: LocalStore, remote: Store, *, single_writer: bool = False) -> None:
        self.local_store = local
        self.remote = open_or_create(remote, single_writer=single_writer)
        self.local = Repository(local)
        self._held: set[str] = set()

    # Pulling.

    def pull_log(self, *, progress: Progress | None = None) -> Stranded:
        """Makes the local log equal to the remote one, pushing first what was left behind.

        Commits of an earlier process on this machine that were acknowledged but not pushed are
        pushed now, unless another writer has claimed the output since: those are returned and
        their packs stay in the working copy.
        """
        try:
            self.local.log.load()
        except (NotAnOutput, Damaged):
            self._rebuild_log()
            return Stranded()
        stranded = Stranded()
        if self.local.history.repository != self.remote.history.repository:
            self._rebuild_log()
            return stranded
        left = self.unpushed()
        try:
            for commit in left:
                self._push_commit(commit, progress)
        except (Fenced, Conflict):
            stranded = Stranded(self.unpushed(), self.remote.history.who)
        self._rebuild_log()
        return stranded

    def pull_checkpoint(
        self, commit: Commit, *, progress: Progress | None = None
    ) -> Manifest:
        """Fetches the manifest and the packs that this checkpoint needs, each verified.

        What is here already is not fetched again; a transfer that was cut off goes on where it
        stopped. Raises `Damaged` if the bytes at the store are not what was written.
        """
        manifest = self.remote.manifest(commit)
        for pack, ref in manifest.packs.items():
            fetch_pack(self.remote.store, self.local_store, pack_key(pack), ref, progress=progress)
        key = manifest_key(commit.checkpoint)
        data = self.remote.store.read(key)
        if not self._is_here(key, PackRef(len(data), digest_of(data))):
            self.local_store.put(key, [data], len(data))
        self._held.update(manifest.packs)
        return manifest

    def missing_bytes(self, manifest: Manifest) -> int:
        """Bytes of packs that `pull_checkpoint` would still have to fetch."""
        return sum(
            ref.size
            for pack, ref in manifest.packs.items()
            if not self._has_size(pack_key(pack), ref.size)
        )

    def claim(self, who: str) -> Writer:
        """Claims the remote output, then copies the claim into the local log."""
        writer = self.remote.claim(who)
        self._copy_new_records()
        return self.local.claim(who, generation=writer.generation, writer=writer.writer)

    # Pushing.

    def unpushed(self) -> list[Commit]:
        """Local commits that the remote log does not hold, oldest first."""
        self.local.refresh()
        known = self.remote.history.commits
        return [c for c in self.local.history.commits.values() if c.checkpoint not in known]

    def push(self, *, progress: Progress | None = None) -> list[Commit]:
        """Pushes every local commit in order; returns those pushed.

        Raises `Fenced` when another writer claimed the output, `StoreError` when the store does
        not answer: what is not pushed stays local and goes with the next call.
        """
        pushed = []
        for commit in self.unpushed():
            self._push_commit(commit, progress)
            pushed.append(commit)
        return pushed

    def _push_commit(self, commit: Commit, progress: Progress | None) -> None:
        manifest = self.local.manifest(commit)
        for pack, ref in manifest.packs.items():
            if pack not in self._held:
                self._push_pack(pack, ref, progress)
                self._held.add(pack)
        key = manifest_key(commit.checkpoint)
        data = self.local_store.read(key)
        self.remote.store.put(key, [data], len(data))
        self.remote.log.append(
            lambda history: _rebased(commit, manifest, history),
            claimed_generation=commit.generation,
        )

    def _push_pack(self, pack: str, ref: PackRef, progress: Progress | None) -> None:
        key = pack_key(pack)
        try:
            if self.remote.store.size(key) == ref.size:
                return
        except Missing:
            pass
        self.remote.store.put(key, _FileChunks(self.local_store, key, ref.size, progress), ref.size)

    # The local log is a cache of the remote one.

    def _rebuild_log(self) -> None:
        """Replaces the local log by the remote one, from its newest summary on."""
        history = self.remote.refresh()
        local = self.local.history
        if not (
            0 <= local.seq <= history.seq
            and local.repository == history.repository
            and self._remote_digest(local.seq) == local.head_digest
        ):
            # Highest first, the summary before all: cut off anywhere, a shorter log remains.
            self.local_store.delete(SUMMARY_KEY)
            keys = sorted((e.key for e in self.local_store.list("onward/log/")), reverse=True)
            for key in keys:
                self.local_store.delete(key)
            self.local = Repository(self.local_store)
            if history.seq > 0:
                self._copy_record(history.seq)
                write_summary(self.local_store, history)
        self._copy_new_records()

    def _copy_new_records(self) -> None:
        remote = self.remote.refresh()
        if self.local.history.seq < 0:
            self.local = Repository(self.local_store)
            if remote.seq == 0:
                self._copy_record(0)
            self.local.log.load()
        for seq in range(self.local.history.seq + 1, remote.seq + 1):
            self._copy_record(seq)
        self.local.refresh()

    def _copy_record(self, seq: int) -> None:
        data = self.remote.store.read(record_key(seq))
        self.local_store.put(record_key(seq), [data], len(data))

    def _remote_digest(self, seq: int) -> str:
        if seq == self.remote.history.seq:
            return self.remote.history.head_digest
        return digest_of(self.remote.store.read(record_key(seq)))

    def _has_size(self, key: str, size: int) -> bool:
        try:
            return self.local_store.size(key) == size
        except Missing:
            return False

    def _is_here(self, key: str, ref: PackRef) -> bool:
        return self._has_size(key, ref.size) and digest_of(self.local_store.read(key)) == ref.digest


def _rebased(commit: Commit, manifest: Manifest, history: History) -> AnyRecord:
    """The local commit as it follows the remote history: same record, next slot there."""
    gone = history.condemned & manifest.packs.keys()
    if gone:
        raise Conflict(
            f"checkpoint {commit.checkpoint} cannot be pushed",
            why=f"{len(gone)} packs that it shares with an older checkpoint were dropped from the "
            "output meanwhile",
            do="the checkpoint is whole in the working copy: `onward export` it from there",
        )
    return msgspec.structs.replace(commit, seq=history.seq + 1, prev=history.head_digest)


class _FileChunks:
    """A local object as chunks that may be read again, reporting what was passed on."""

    def __init__(
        self, store: LocalStore, key: str, size_bytes: int, progress: Progress | None
    ) -> None:
        self._store, self._key = store, key
        self._size_bytes, self._progress = size_bytes, progress

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, self._size_bytes, _PUSH_CHUNK):
            data = self._store.read(self._key, start, min(_PUSH_CHUNK, self._size_bytes - start))
            yield data
            if self._progress is not None:
                self._progress(len(data))

