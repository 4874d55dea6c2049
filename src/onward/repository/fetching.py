"""Fetching packs: a cut connection goes on, nothing unverified is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from onward.errors import Damaged, NoSpace
from onward.repository.manifest import PackRef
from onward.repository.packs import Hasher
from onward.repository.ranges import Progress, Transfer, fetch_object
from onward.stores.base import Chunk, Store
from onward.stores.local import LocalStore
from onward.stores.os_errors import looked_up, written

_PIECE_BYTES = 1 << 20
_AT_ONCE = 4


def transfer_all(transfers: Iterable[Transfer], progress: Progress | None = None) -> None:
    """Does all transfers, a few at once, and raises the first error once none is running.

    Each is given what to call with the number of bytes that passed. An error or an interruption
    ends the others at their next call of it.
    """
    give_up = Event()

    def passed(size_bytes: int) -> None:
        if give_up.is_set():
            raise _GivenUp
        if progress is not None:
            progress(size_bytes)

    def do(transfer: Transfer) -> None:
        try:
            passed(0)
            transfer(passed)
        except BaseException:
            give_up.set()
            raise

    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="onward-transfer")
    futures = [pool.submit(do, transfer) for transfer in transfers]
    try:
        errors = [future.exception() for future in futures]
    except BaseException:
        # Ctrl-C must not wait for a store that does not answer: threads end at their next call.
        give_up.set()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    # Only those that came first tell why; the others were told to give up.
    for error in errors:
        if error is not None and not isinstance(error, _GivenUp):
            raise error


class _GivenUp(Exception):
    """Another transfer failed, or somebody pressed Ctrl-C."""


def fetch_pack(
    remote: Store,
    local: LocalStore,
    key: str,
    ref: PackRef,
    *,
    progress: Progress | None = None,
) -> None:
    """Fetches `key` into the working copy unless it is there, and verifies every byte.

    The part already fetched stays in `onward/incoming/` when the transfer is cut off, and the next
    call goes on behind it. Raises `NoSpace` before the transfer, `TransferFailed` when the store
    stays away, `Damaged` when the bytes are not those that the manifest names.
    """
    final = local.path(key)
    passed = progress or _unseen
    if is_whole(final, ref):
        passed(ref.size)
        return
    partial = _partial(local, key)
    with written(f"could not make {partial.parent}"):
        partial.parent.mkdir(parents=True, exist_ok=True)
    have = min(fetched_bytes(local, key), ref.size)
    check_space(partial.parent, ref.size - have)
    passed(have)
    whole = _fetch_hashed(remote, key, partial, ref, passed)
    if not whole and have:
        # What an earlier transfer left may have gone bad on this disk: only a whole one can tell.
        partial.unlink()
        passed(-ref.size)
        whole = _fetch_hashed(remote, key, partial, ref, passed)
    if not whole:
        partial.unlink()
        raise Damaged(
            f"{key} at {remote.url} is damaged",
            why="its bytes are not those that the manifest names",
            do="choose another checkpoint with --predownload, or run `onward verify --every-byte`",
        )
    with written(f"could not store {final}"):
        final.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(final)


def fetched_bytes(local: LocalStore, key: str) -> int:
    """How much of `key` an earlier transfer that was cut off has left."""
    partial = _partial(local, key)
    return partial.stat().st_size if partial.is_file() else 0


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises `NoSpace` if the disk of `folder`, which need not exist yet, cannot take so much."""
    free = free_bytes(folder)
    if needed_bytes > free:
        raise NoSpace(
            f"{needed_bytes:,} bytes are to be fetched into {folder}",
            why=f"only {free:,} bytes are free there",
            do="free some space, or set ONWARD_HOME to a folder on a larger disk",
        )


def free_bytes(folder: Path) -> int:
    """What the disk of `folder`, which need not exist yet, can still take."""
    with looked_up(f"could not look at {folder}"):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free


def _unseen(size_bytes: int) -> None:
    return


def _partial(local: LocalStore, key: str) -> Path:
    return local.path(f"onward/incoming/{key.rpartition('/')[2]}")


def is_whole(path: Path, ref: PackRef) -> bool:
    """Whether the file at `path` is the pack that a manifest names, byte for byte."""
    with looked_up(f"could not read {path}"):
        if not path.is_file() or path.stat().st_size != ref.size:
            return False
        hasher = Hasher(ref)
        for piece in _pieces_of(path):
            hasher.update(piece)
        return hasher.hexdigest() == ref.digest


def _fetch_hashed(remote: Store, key: str, partial: Path, ref: PackRef, passed: Progress) -> bool:
    """Whether the bytes are right: they are hashed while they arrive, what was left here first."""
    hasher = Hasher(ref)
    with looked_up(f"could not read {partial}"):
        if partial.is_file() and partial.stat().st_size <= ref.size:
            for piece in _pieces_of(partial):
                hasher.update(piece)
    fetch_object(remote, key, partial, size_bytes=ref.size, progress=passed, arrived=hasher.update)
    return hasher.hexdigest() == ref.digest


def _pieces_of(path: Path) -> Iterator[Chunk]:
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]
