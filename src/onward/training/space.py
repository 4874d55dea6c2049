"""A limit on the local space of a working copy: what is pushed and not needed goes first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from onward.errors import Damaged, SpaceLimit, UsageError
from onward.repository import Commit, Repository, pack_key
from onward.repository.working import read_working, unpushed_commits
from onward.stores import LocalStore
from onward.training.environment import SPACE
from onward.training.wording import counted, size

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?)(i?)B?")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_PACK = re.compile(r"onward/packs/([0-9a-f]{32})\.safetensors")


def parse_space(text: str | int) -> int:
    """Bytes of `20GB`, `1.5 TB`, `512MiB`, `1000000`. Raises `UsageError`."""
    match = _AMOUNT.fullmatch(str(text).strip())
    amount = 0
    if match is not None:
        unit = 1024 if match[3] else 1000
        amount = int(float(match[1]) * unit ** _POWERS[match[2].upper()])
    if amount <= 0:
        raise UsageError(
            f"{str(text)!r} is no amount of space", do="write it like 20GB, 512MiB or 1000000000"
        )
    return amount


def space_limit(given: str | int | None = None) -> int | None:
    """The limit in bytes: as given, else from `ONWARD_SPACE`; None where there is none.

    Raises `UsageError`.
    """
    chosen = given if given not in (None, "") else os.environ.get(SPACE, "")
    return parse_space(chosen) if chosen not in (None, "") else None


@dataclass(frozen=True, slots=True)
class _Pack:
    name: str
    size_bytes: int
    stored_ns: int


class LocalSpace:
    """Keeps the packs of a working copy within `limit_bytes`, from its folder alone.

    Deletes only what the output holds, and never at the output: the log here still lists the
    checkpoints, and they are fetched again when needed. In a plain folder, whose checkpoints are
    nowhere else, it does nothing. Use it in the thread that commits.
    """

    def __init__(self, store: LocalStore, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._store = store
        self._pinned: set[str] = set()
        self._packs_of: dict[str, frozenset[str]] = {}

    def pin(self, packs: Iterable[str]) -> None:
        """Keeps these packs until `unpin`: those of the checkpoint that the run begins from.

        They are read by the restore, and the first commit may share them: unpin after that.
        """
        self._pinned.update(packs)

    def unpin(self) -> None:
        self._pinned.clear()

    def used_bytes(self) -> int:
        """What packs take here now."""
        return sum(pack.size_bytes for pack in self._packs())

    def make_room(self, needed_bytes: int) -> int:
        """Deletes packs, oldest first, until `needed_bytes` more fit; returns the bytes freed.

        Kept are the packs of unpushed checkpoints, of the newest checkpoint, and pinned ones.
        Raises `SpaceLimit` where that is not enough: nothing must be written then.
        """
        working = read_working(self._store)
        if working is None:
            return 0
        packs = sorted(self._packs(), key=lambda pack: (pack.stored_ns, pack.name))
        used = sum(pack.size_bytes for pack in packs)
        if used + needed_bytes <= self.limit_bytes:
            return 0
        repository = Repository(self._store)
        repository.log.load()
        # The note was read before the log: what is pushed meanwhile is only kept a little longer.
        unpushed = unpushed_commits(repository.history, working)
        needed = self._needed(repository)
        waiting = self._of_all(repository, unpushed)
        freed = 0
        for pack in packs:
            if used - freed + needed_bytes <= self.limit_bytes:
                break
            if waiting is not None and pack.name not in needed | waiting:
                self._store.delete(pack_key(pack.name))
                freed += pack.size_bytes
        if used - freed + needed_bytes > self.limit_bytes:
            kept = sum(pack.size_bytes for pack in packs if pack.name in needed)
            raise self._too_much(needed_bytes, used - freed, kept, unpushed)
        return freed

    def _packs(self) -> Iterator[_Pack]:
        for entry in self._store.list("onward/packs/"):
            found = _PACK.fullmatch(entry.key)
            if found is not None:
                with suppress(FileNotFoundError):
                    stored_ns = self._store.path(entry.key).stat().st_mtime_ns
                    yield _Pack(found[1], entry.size_bytes, stored_ns)

    def _needed(self, repository: Repository) -> set[str]:
        """What the next commit builds on, or a restore reads."""
        newest = repository.history.latest()
        found = self._of_all(repository, [newest] if newest is not None else [])
        # A newest checkpoint whose manifest is not here was not fetched: nothing builds on it.
        return self._pinned | (found or set())

    def _of_all(self, repository: Repository, commits: Iterable[Commit]) -> set[str] | None:
        """The packs of these checkpoints; None if one of them cannot be read."""
        found: set[str] = set()
        for commit in commits:
            if commit.checkpoint not in self._packs_of:
                try:
                    packs = frozenset(repository.manifest(commit).packs)
                except Damaged:
                    return None
                self._packs_of[commit.checkpoint] = packs
            found |= self._packs_of[commit.checkpoint]
        return found

    def _too_much(
        self, needed_bytes: int, used: int, kept: int, unpushed: list[Commit]
    ) -> SpaceLimit:
        what = f"{size(needed_bytes)} more would pass the limit of {size(self.limit_bytes)}"
        what += f" on {self._store.url}"
        if kept + needed_bytes > self.limit_bytes:
            return SpaceLimit(
                what,
                for_good=True,
                why=f"{size(kept)} of the newest checkpoint must stay beside it",
                do=f"raise --space (ONWARD_SPACE) to {size(1.1 * (kept + needed_bytes))} or more",
            )
        return SpaceLimit(
            what,
            for_good=False,
            why=f"{counted(len(unpushed), 'checkpoint')} there are not pushed yet "
            f"({size(used)} are used)",
            do="nothing: there is room once they are pushed; or raise --space (ONWARD_SPACE)",
        )
