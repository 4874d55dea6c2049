"""A working copy: the local repository beside an output on an object store.

The local log is a copy of the remote one, plus commits that are not pushed yet. The remote log is
the truth: a claim goes there first, and pushing appends the own commits to it in order. If an
alias or a drop of somebody else took the next slot there meanwhile, the own record follows it
under the next number; if a claim did, this writer is `Fenced`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from onward.errors import Conflict, Damaged, Fenced, Missing, NotAnOutput, OnwardError
from onward.repository.documents import digest_of
from onward.repository.fetching import check_space, fetch_pack, fetched_bytes, transfer_all
from onward.repository.history import History
from onward.repository.manifest import Manifest, PackRef, manifest_bytes, manifest_key
from onward.repository.packs import pack_key
from onward.repository.ranges import Progress
from onward.repository.records import AnyRecord, Commit, DocumentRef, record_key
from onward.repository.renewing import Renewals
from onward.repository.repository import Repository, open_or_create
from onward.repository.summary import SUMMARY_KEY, write_summary
from onward.repository.working import note_pushed, write_working
from onward.repository.writer import Writer
from onward.stores.base import Chunk, Store
from onward.stores.local import LocalStore
from onward.stores.os_errors import written

_PUSH_CHUNK = 8 << 20
_DOCUMENTS_AT_ONCE = 8


@dataclass(slots=True)
class Stranded:
    """Local commits that can never be pushed: how many, why, and where they are kept.

    `folder` is a whole output of its own, for `onward log`, `onward export` or `--branch`.
    """

    commits: list[Commit] = field(default_factory=list)
    why: str = ""
    folder: Path | None = None


class Mirror:
    """Keeps the local repository in `local` and the remote one in step."""

    def __init__(self, local: LocalStore, remote: Store, *, single_writer: bool = False) -> None:
        self.local_store = local
        self.remote = open_or_create(remote, single_writer=single_writer)
        self.local = Repository(local)
        self._held: set[str] = set()
        self._pulled: dict[str, str] = {}  # checkpoints, and how their manifests are called
        self._renewals = Renewals()

    # Pulling.

    def pull_log(self, *, on_pushed: Callable[[Commit], None] | None = None) -> Stranded:
        """Makes the local log equal to the remote one, pushing first what was left behind.

        Commits of an earlier process on this machine that were acknowledged but not pushed are
        pushed now. Where that is impossible, because another writer has claimed the output since
        or because they are damaged here, they are set aside and returned.
        """
        self.remote.refresh()
        stranded = Stranded()
        try:
            self.local.log.load()
            if self.local.history.repository != self.remote.history.repository:
                stranded = self._set_aside("the output is not the one that they were made for")
            else:
                self.push(on_pushed=on_pushed)
        except NotAnOutput:
            pass
        except (Fenced, Conflict, Damaged) as error:
            stranded = self._set_aside(error.why or error.what)
        self._rebuild_log()
        # The log here is a copy of the other one now: nothing in it is unpushed.
        write_working(self.local_store, self.local.history, self.remote.store.url)
        return stranded

    def pull_checkpoint(self, commit: Commit, *, progress: Progress | None = None) -> Manifest:
        """Fetches the manifest and the packs that this checkpoint needs, each verified.

        What is here already is not fetched again; a transfer that was cut off goes on where it
        stopped. Raises `Damaged` if the bytes at the store are not what was written.
        """
        manifest = self.remote.manifest(commit)
        self.pull([manifest], progress=progress)
        return manifest

    def pull(self, manifests: Iterable[Manifest], *, progress: Progress | None = None) -> None:
        """Fetches the checkpoints of these manifests, packs that they share only once.

        Raises `NoSpace` before anything is fetched if not all of it would fit.
        """
        manifests = list(manifests)
        check_space(self.local_store.folder, missing_bytes(self.local_store, manifests))
        packs = {pack: ref for manifest in manifests for pack, ref in manifest.packs.items()}
        transfer_all((partial(self._pull_pack, pack, ref) for pack, ref in packs.items()), progress)
        for manifest in manifests:
            history = self.remote.history
            name = history.manifest_place(history.commits[manifest.checkpoint]).name
            key = manifest_key(name)
            data = self.remote.store.read(key)
            if not self._is_here(key, PackRef(len(data), digest_of(data))):
                self.local_store.put(key, [data], len(data))
            self._pulled[manifest.checkpoint] = name
        self._held.update(packs)

    def manifests(self, commits: Iterable[Commit]) -> list[Manifest]:
        """The verified manifests of remote checkpoints."""
        with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE) as pool:
            return list(pool.map(self.remote.manifest, commits))

    def claim(self, who: str) -> Writer:
        """Claims the remote output, then copies the claim into the local log.

        The writer reads the local log by itself, so that it may commit in one thread while
        another pushes.
        """
        writer = self.remote.claim(who)
        self._copy_new_records()
        self._follow_repacks()
        own = Repository(self.local_store)
        own.log.load()
        return own.claim(who, generation=writer.generation, writer=writer.writer)

    def _follow_repacks(self) -> None:
        """Fetches anew what is held here and was repacked between the pull and the claim."""
        history = self.remote.history
        moved = [
            history.commits[id_]
            for id_, name in self._pulled.items()
            if id_ not in history.dropped
            and history.manifest_place(history.commits[id_]).name != name
        ]
        self.pull(self.manifests(moved))

    # Pushing.

    def unpushed(self) -> list[Commit]:
        """Local commits that the remote log does not hold, oldest first."""
        self.local.refresh()
        known = self.remote.history.commits
        return [c for c in self.local.history.commits.values() if c.checkpoint not in known]

    def push(
        self,
        *,
        progress: Progress | None = None,
        on_pushed: Callable[[Commit], None] | None = None,
    ) -> list[Commit]:
        """Pushes every local commit in order; returns those pushed.

        Raises `Fenced` when another writer claimed the output, `StoreError` when the store does
        not answer: what is not pushed stays local and goes with the next call.
        """
        pushed = []
        for commit in self.unpushed():
            self._push_commit(commit, progress)
            pushed.append(commit)
            if on_pushed is not None:
                on_pushed(commit)
        return pushed

    def _push_commit(self, commit: Commit, progress: Progress | None) -> None:
        original = self.local.manifest(commit)
        # A push whose answer was lost may have been carried out after all.
        with suppress(_PushedBefore):
            # What is pushed changes only with records that were read since the last try: had that
            # try been carried out after all, its commit would be among them.
            while commit.checkpoint not in self.remote.history.commits:
                manifest = self._renewals.renewed(original, self.remote.history.condemned)
                with suppress(_CondemnedMeanwhile):
                    self._push_as(commit, original, manifest, progress)
        note_pushed(
            self.local_store, self.local.history.repository, self.remote.store.url,
            commit.checkpoint,
        )  # fmt: skip

    def _push_as(
        self, commit: Commit, original: Manifest, manifest: Manifest, progress: Progress | None
    ) -> None:
        new = {pack: ref for pack, ref in manifest.packs.items() if pack not in self._held}
        # In any order: nobody looks for them before the record is there.
        transfer_all((partial(self._push_pack, pack, ref) for pack, ref in new.items()), progress)
        self._held.update(new)
        key = manifest_key(commit.checkpoint)
        data = self.local_store.read(key) if manifest is original else manifest_bytes(manifest)
        self.remote.store.put(key, [data], len(data))
        pushed = msgspec.structs.replace(commit, manifest=DocumentRef(digest_of(data), len(data)))
        self.remote.log.append(
            lambda history: _rebased(pushed, manifest, history),
            claimed_generation=commit.generation,
        )

    def _pull_pack(self, pack: str, ref: PackRef, progress: Progress) -> None:
        fetch_pack(self.remote.store, self.local_store, pack_key(pack), ref, progress=progress)

    def _push_pack(self, pack: str, ref: PackRef, progress: Progress) -> None:
        key, local_key = pack_key(pack), pack_key(self._renewals.local(pack))
        # First, as what was pushed once need not be here any more.
        if _has_size(self.remote.store, key, ref.size):
            return
        if not _has_size(self.local_store, local_key, ref.size):
            raise Damaged(
                f"pack {pack} cannot be pushed",
                why=f"its file in {self.local_store.url} is gone or cut short",
            )
        chunks = _FileChunks(self.local_store, local_key, ref.size, progress)
        self.remote.store.put(key, chunks, ref.size)

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

    def _set_aside(self, why: str) -> Stranded:
        """Keeps the local repository under second names before its log becomes the remote's."""
        try:
            commits = self.unpushed()
        except OnwardError:
            commits = []  # damaged: whoever looks at the folder will see how far it can be read
        folder = (
            self.local_store.folder.parent
            / "stranded"
            / (commits[-1].checkpoint if commits else self.local.history.head_digest[:16])
        )
        with written(f"could not keep checkpoints that cannot be pushed in {folder}"):
            for entry in self.local_store.list("onward/"):
                if entry.key.startswith("onward/incoming/"):
                    continue
                source, target = self.local_store.path(entry.key), folder / entry.key
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(source, target)
        for commit in commits:
            self.local_store.delete(manifest_key(commit.checkpoint))
        return Stranded(commits, why, folder)

    def _is_here(self, key: str, ref: PackRef) -> bool:
        if not _has_size(self.local_store, key, ref.size):
            return False
        return digest_of(self.local_store.read(key)) == ref.digest


def missing_bytes(local: LocalStore, manifests: Iterable[Manifest]) -> int:
    """Bytes of packs that would have to be fetched into a working copy for these checkpoints."""
    packs = {pack: ref for manifest in manifests for pack, ref in manifest.packs.items()}
    return sum(
        max(0, ref.size - fetched_bytes(local, pack_key(pack)))
        for pack, ref in packs.items()
        if not _has_size(local, pack_key(pack), ref.size)
    )


def _has_size(store: Store, key: str, size: int) -> bool:
    try:
        return store.size(key) == size
    except Missing:
        return False


def _rebased(commit: Commit, manifest: Manifest, history: History) -> AnyRecord:
    """The local commit as it follows the remote history: same record, next slot there."""
    if commit.checkpoint in history.commits:
        raise _PushedBefore
    if history.condemned & manifest.packs.keys():
        raise _CondemnedMeanwhile
    return msgspec.structs.replace(commit, seq=history.seq + 1, prev=history.head_digest)


class _PushedBefore(Exception):
    """The remote log holds this commit already."""


class _CondemnedMeanwhile(Exception):
    """Somebody condemned a pack that this commit uses: it is pushed again under another name."""


class _FileChunks:
    """A local object as chunks that may be read again, reporting what was passed on."""

    def __init__(self, store: LocalStore, key: str, size_bytes: int, progress: Progress) -> None:
        self._store, self._key = store, key
        self._size_bytes, self._progress = size_bytes, progress

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, self._size_bytes, _PUSH_CHUNK):
            data = self._store.read(self._key, start, min(_PUSH_CHUNK, self._size_bytes - start))
            yield data
            self._progress(len(data))
