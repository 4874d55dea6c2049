"""Retention while training goes on: after a commit, what the rules do not keep goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from onward.repository.collecting import Collector, usual_grace_s
from onward.repository.manifest import manifest_key
from onward.repository.mirror import Mirror
from onward.repository.packs import pack_key
from onward.repository.repository import Repository
from onward.repository.retention import Retention, decide


@dataclass(frozen=True, slots=True)
class Kept:
    """What one call dropped, and the bytes of packs that it deleted."""

    dropped: tuple[str, ...] = ()
    freed_bytes: int = 0


class Keeper:
    """Keeps an output to its rules, beside the writer that commits to it.

    Give it the repository whose `claim` made the writer: they share one log, so that `collect`
    belongs into the thread that commits, between two commits. Nothing is read or written when there
    is nothing to drop and nothing to delete. `grace_s` is how long dropped bytes stay for readers;
    by default none in a folder, an hour on an object store. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        repository: Repository,
        retention: Retention,
        *,
        claimed_generation: int,
        grace_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._retention = retention
        self._collector = Collector(repository, claimed_generation=claimed_generation)
        self._grace_s = usual_grace_s(repository.store) if grace_s is None else grace_s
        self._clock = clock
        self._next_sweep_s = 0.0  # at once: an earlier process may have left something to delete

    def collect(self) -> Kept:
        """Drops what the rules do not keep, and deletes what is old enough.

        Raises `StoreError` or `Indeterminate` where the store fails, `Damaged` where a manifest
        that stays does not tell what it needs: none of it harms what is kept, and the next call
        goes on. Raises `Fenced` once another writer claimed the output.
        """
        if not self._retention.drops_anything:
            return Kept()
        dropped: list[str] = []
        if decide(self._repository.history, self._retention).goes:
            dropped = self._collector.prune(self._retention)
            self._next_sweep_s = min(self._next_sweep_s, self._clock() + self._grace_s)
        now_s = self._clock()
        if now_s < self._next_sweep_s:
            return Kept(tuple(dropped))
        swept = self._collector.sweep(grace_s=self._grace_s, now_s=now_s)
        self._next_sweep_s = now_s + self._grace_s if swept.waiting_bytes else float("inf")
        return Kept(tuple(dropped), swept.freed_bytes)


class WorkingCopyKeeper:
    """Keeps an output on an object store to its rules, and its working copy no larger than needed.

    `collect` belongs into the thread that pushes, after a push: what is dropped, is dropped from
    the remote log. The working copy's log is not told; it is made anew from the remote one when
    the next run begins.
    """

    def __init__(
        self,
        mirror: Mirror,
        retention: Retention,
        *,
        claimed_generation: int,
        grace_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._mirror = mirror
        self._remote = Keeper(
            mirror.remote,
            retention,
            claimed_generation=claimed_generation,
            grace_s=grace_s,
            clock=clock,
        )

    def collect(self) -> Kept:
        """As `Keeper.collect`, at the remote output; then what was dropped there goes here too."""
        kept = self._remote.collect()
        if kept.dropped:
            self._trim()
        return kept

    def _trim(self) -> None:
        """Deletes local files that neither the remote output nor an unpushed commit needs.

        The newest commit counts as unpushed: the next one may reuse its packs, and has them pushed
        from here under other names if somebody repacked them meanwhile.
        """
        mirror, remote = self._mirror, self._mirror.remote.history
        unpushed = mirror.unpushed()
        newest = [commit for commit in [mirror.local.history.latest()] if commit is not None]
        needed = {pack for c in (*unpushed, *newest) for pack in mirror.local.manifest(c).packs}
        for pack in remote.condemned - needed:
            mirror.local_store.delete(pack_key(pack))
        for id_ in remote.dropped:
            mirror.local_store.delete(manifest_key(id_))
