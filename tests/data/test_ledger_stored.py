"""What a ledger costs in a real output: a checkpoint stores what is new to it, and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.data.provenance import ledgers_of
from onward.repository import Commit, Facts, Repository, open_or_create, read_state
from onward.repository.staging import Staging
from onward.stores import LocalStore
from tests.data.ledgers import digests, state_with

_ITEMS = 50_000


class Growing:
    """An output whose model learns increment after increment, each in a process of its own."""

    def __init__(self, folder: Path, *, staging: bool) -> None:
        self.repository: Repository = open_or_create(LocalStore(folder))
        self.staging = staging
        self.data = np.empty((0, 16), np.uint8)
        self.commits: list[Commit] = []

    def grow(self, more: Any, *, without: int = 0) -> list[int]:
        """Learns `more` items, with the first `without` gone; the bytes of its three packs."""
        latest = self.repository.history.latest()
        ledger = Ledger()
        writer = self.repository.claim("test")
        if self.staging:
            writer.staging = Staging(threads=1)
        if latest is not None:
            manifest = self.repository.manifest(latest)
            writer.base_on(manifest)
            read_state(self.repository.store, manifest)
            [stored] = ledgers_of(self.repository, latest).values()
            ledger = stored
            ledger.learn_pinned()
        self.data = np.concatenate([self.data[without:], more])
        ledger.pin(Items(len(self.data), self.data, "keyed"))
        if self.staging and latest is not None:
            writer.prime(state_with(loader0=ledger.state_dict()))
            writer.check_primed()
        stored_bytes = []
        for last in (False, False, True):
            commit = writer.commit(
                state_with(loader0=ledger.state_dict()), self._facts(finished=last)
            )
            stored_bytes.append(commit.stored)
            self.commits.append(commit)
        return stored_bytes

    def _facts(self, *, finished: bool) -> Facts:
        history = self.repository.history
        latest = history.latest()
        return Facts(
            step=len(history.commits), epoch=0,
            increment=1 if latest is None else latest.increment + latest.finished,
            parent=latest.checkpoint if latest else None, finished=finished, reason="test",
            verb="continue", framework="numpy", framework_version="2",
        )  # fmt: skip


@pytest.mark.parametrize("staging", [False, True])
def test_an_increment_stores_sixteen_bytes_for_each_new_item(tmp_path: Path, staging: bool) -> None:
    """One per cent more items cost 16 bytes each, once: not again at the saves that follow.

    What is known already costs nothing at all.
    """
    growing = Growing(tmp_path, staging=staging)
    first, *again = growing.grow(digests("first", _ITEMS))
    assert first < 16 * _ITEMS + 1000
    assert again == [0, 0]
    share = _ITEMS // 100
    first, *again = growing.grow(digests("more", share))
    assert 16 * share <= first < 16 * share + 1000
    assert again == [0, 0]


def test_withdrawn_items_cost_four_bytes_each_once(tmp_path: Path) -> None:
    """That an item is gone is remembered by its number alone."""
    growing = Growing(tmp_path, staging=True)
    growing.grow(digests("first", _ITEMS))
    share = _ITEMS // 100
    first, *_ = growing.grow(digests("more", share), without=share)
    assert (16 + 4) * share <= first < (16 + 4) * share + 1000
    first, *_ = growing.grow(digests("still more", share // 10))
    assert first < 16 * share // 10 + 1000


def test_many_increments_rewrite_little_and_read_back_whole(tmp_path: Path) -> None:
    """Over 40 increments of 1 % each, merging costs a few times the new items, never the old."""
    growing = Growing(tmp_path, staging=True)
    growing.grow(digests("first", _ITEMS))
    share = _ITEMS // 100
    stored = [growing.grow(digests(f"more {i}", share))[0] for i in range(40)]
    print(f"bytes per new item: {np.mean(stored) / share:.1f}, at most {max(stored) / share:.1f}")
    assert np.mean(stored) < 16 * share * 4
    [ledger] = ledgers_of(growing.repository, growing.commits[-1]).values()
    assert len(ledger.state_dict()["segments"]) < 12
    assert ledger.seen(Items(len(growing.data), growing.data, "keyed")).all()
    assert ledger.known + (ledger.pinned or 0) == _ITEMS + 40 * share
    [early] = ledgers_of(growing.repository, growing.commits[0]).values()
    assert early.seen(Items(len(growing.data), growing.data, "keyed")).sum() == _ITEMS
