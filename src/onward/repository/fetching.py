"""Fetching large objects by range: a cut connection goes on, nothing unverified is kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TypeAlias

from onward.errors import Damaged, Missing, NoSpace, TransferFailed, Unreachable
from onward.repository.manifest import PackRef
from onward.repository.packs import Hasher
from onward.stores.base import Store
from onward.stores.local import LocalStore
from onward.stores.os_errors import looked_up, written

_RANGE_BYTES = 8 << 20
_TRIES = 8
_AT_ONCE = 4

Progress: TypeAlias = Callable[[int], None]
Transfer: TypeAlias = Callable[[Progress], None]


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
    if _is_whole(final, ref):
        passed(ref.size)
        return
    partial = _partial(local, key)
    with written(f"could not make {partial.parent}"):
        partial.parent.mkdir(parents=True, exist_ok=True)
    have = min(fetched_bytes(local, key), ref.size)
    check_space(partial.parent, ref.size - have)
    passed(have)
    fetch_object(remote, key, partial, size_bytes=ref.size, progress=passed)
    if not _is_whole(partial, ref) and have:
        # What an earlier transfer left may have gone bad on this disk: only a whole one can tell.
        partial.unlink()
        passed(-ref.size)
        fetch_object(remote, key, partial, size_bytes=ref.size, progress=passed)
    if not _is_whole(partial, ref):
        partial.unlink()
        raise Damaged(
            f"{key} at {remote.url} is damaged",
            why="its bytes are not those that the manifest names",
            do="choose another checkpoint with --predownload, or run `onward verify --every-byte`",
        )
    with written(f"could not store {final}"):
        with partial.open("rb") as file:
            os.fsync(file.fileno())
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


def fetch_object(
    remote: Store, key: str, partial: Path, *, size_bytes: int, progress: Progress
) -> None:
    """Appends to the file `partial` what it lacks of an object, however often the store breaks off.

    Raises `TransferFailed` when the store stays away; what was fetched is kept.
    """
    with written(f"could not write {partial}"):
        have = partial.stat().st_size if partial.is_file() else 0
        if have > size_bytes:
            partial.unlink()
            have = 0
        _fetch_rest(remote, key, partial, have, size_bytes, progress)


def _unseen(size_bytes: int) -> None:
    return


def _partial(local: LocalStore, key: str) -> Path:
    return local.path(f"onward/incoming/{key.rpartition('/')[2]}")


def _is_whole(path: Path, ref: PackRef) -> bool:
    with looked_up(f"could not read {path}"):
        return (
            path.is_file()
            and path.stat().st_size == ref.size
            and _digest_of(path, ref) == ref.digest
        )


def _fetch_rest(
    remote: Store, key: str, partial: Path, have: int, size_bytes: int, progress: Progress
) -> None:
    with partial.open("ab") as file:
        while have < size_bytes:
            wanted = min(_RANGE_BYTES, size_bytes - have)
            data = read_patiently(remote, key, have, wanted, progress=progress)
            if not data:
                raise Damaged(f"{key} at {remote.url} is cut short", why=f"at byte {have:,}")
            file.write(data)
            have += len(data)
            progress(len(data))


def read_patiently(
    remote: Store, key: str, start: int, size_bytes: int | None, *, progress: Progress
) -> bytes:
    """A range of an object from a store that breaks off now and then.

    Raises `TransferFailed` when it stays away, `Damaged` when the object is gone.
    """
    failures = 0
    while True:
        try:
            return remote.read(key, start, size_bytes)
        except Missing as error:
            raise Damaged(f"{key} is missing at {remote.url}") from error
        except Unreachable as error:
            failures += 1
            if failures >= _TRIES:
                raise TransferFailed(
                    f"{key} could not be fetched from {remote.url}",
                    why=error.what,
                    do="run the same command again: what was fetched is kept",
                ) from error
            progress(0)
            time.sleep(min(0.05 * 2**failures, 5.0))


def _digest_of(path: Path, ref: PackRef) -> str:
    hasher = Hasher(ref)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_RANGE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()
