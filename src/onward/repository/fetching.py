"""Fetching one large object by range: a cut connection goes on, nothing unverified is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from onward.errors import Damaged, Missing, NoSpace, TransferFailed, Unreachable
from onward.repository.manifest import PackRef
from onward.stores.base import Store
from onward.stores.local import LocalStore

_RANGE_BYTES = 8 << 20
_TRIES = 8


def fetch_pack(
    remote: Store,
    local: LocalStore,
    key: str,
    ref: PackRef,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetches `key` into the working copy unless it is there, and verifies every byte.

    The part already fetched stays in `onward/incoming/` when the transfer is cut off, and the next
    call goes on behind it. Raises `NoSpace` before the transfer, `TransferFailed` when the store
    stays away, `Damaged` when the bytes are not those that the manifest names.
    """
    final = local.path(key)
    if final.is_file() and final.stat().st_size == ref.size and _digest_of_file(final) == ref.digest:
        if progress is not None:
            progress(ref.size)
        return
    partial = local.path(f"onward/incoming/{final.name}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.is_file() else 0
    if have > ref.size:
        partial.unlink()
        have = 0
    check_space(partial.parent, ref.size - have)
    if progress is not None and have:
        progress(have)
    _fetch_rest(remote, key, partial, have, ref, progress)
    if _digest_of_file(partial) != ref.digest:
        partial.unlink()
        raise Damaged(
            f"{key} at {remote.url} is damaged",
            why="its bytes are not those that the manifest names",
            do="choose another checkpoint with --predownload, or run `onward verify --every-byte`",
        )
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(final)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises `NoSpace` if the disk below `folder` cannot take so much."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise NoSpace(
            f"{needed_bytes:,} bytes are to be fetched into {folder}",
            why=f"only {free:,} bytes are free there",
            do="free some space, or set ONWARD_HOME to a folder on a larger disk",
        )


def _fetch_rest(
    remote: Store,
    key: str,
    partial: Path,
    have: int,
    ref: PackRef,
    progress: Callable[[int], None] | None,
) -> None:
    failures = 0
    with partial.open("ab") as file:
        while have < ref.size:
            try:
                data = remote.read(key, have, min(_RANGE_BYTES, ref.size - have))
                if not data:
                    raise Damaged(f"{key} at {remote.url} is cut short", why=f"at byte {have:,}")
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
                continue
            failures = 0
            file.write(data)
            have += len(data)
            if progress is not None:
                progress(len(data))


def _digest_of_file(path: Path) -> str:
    hasher = blake3()
    hasher.update_mmap(path)
    return hasher.hexdigest()
