"""The folded log, stored as a cache that keeps opening cheap (docs/format.md §5)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from onward.errors import Missing, RepositoryError, StoreError
from onward.repository.documents import (
    FORMAT,
    MAX_SUMMARY_BYTES,
    convert,
    digest_of,
    from_bytes,
    to_bytes,
)
from onward.repository.history import History
from onward.repository.records import (
    CheckpointId,
    Commit,
    Count,
    Digest,
    Hex32,
    Text,
    parse_record,
    record_key,
)
from onward.stores.base import Store

SUMMARY_KEY = "onward/summary.json"


class Summary(Struct, frozen=True, kw_only=True):
    """The stored form of a `History`."""

    format: int = FORMAT
    repository: Hex32
    seq: Count
    record_digest: Digest
    generation: Count
    writer: str
    who: Text
    commits: list[Commit]
    aliases: dict[str, CheckpointId]
    dropped: list[CheckpointId]
    condemned: list[Hex32]
    digest: str = ""


def summary_bytes(history: History) -> bytes:
    """The stored form, its own digest filled in."""
    summary = Summary(
        repository=history.repository,
        seq=history.seq,
        record_digest=history.head_digest,
        generation=history.generation,
        writer=history.writer,
        who=history.who,
        commits=list(history.commits.values()),
        aliases=dict(history.aliases),
        dropped=sorted(history.dropped),
        condemned=sorted(history.condemned),
    )
    document: dict[str, Any] = msgspec.to_builtins(summary)
    document["digest"] = digest_of(to_bytes(document))
    return to_bytes(document)


def write_summary(store: Store, history: History) -> None:
    """Replaces the stored summary."""
    data = summary_bytes(history)
    store.put(SUMMARY_KEY, [data], len(data))


def read_summary(store: Store) -> History | None:
    """The stored summary as a history, or None where there is none that can be trusted.

    Never an authority: anything odd about it means reading the log instead.
    """
    try:
        if store.size(SUMMARY_KEY) > MAX_SUMMARY_BYTES:
            return None
        data = store.read(SUMMARY_KEY)
        document = from_bytes(data, name="the summary", max_bytes=MAX_SUMMARY_BYTES)
        summary = convert(document, Summary, name="the summary")
        claimed = document["digest"]
        document["digest"] = ""
        if digest_of(to_bytes(document)) != claimed:
            return None
        record = store.read(record_key(summary.seq))
        if digest_of(record) != summary.record_digest:
            return None
        parse_record(record, summary.seq)
    except (Missing, RepositoryError):
        return None
    except StoreError:
        raise
    return History(
        repository=summary.repository,
        seq=summary.seq,
        head_digest=summary.record_digest,
        generation=summary.generation,
        writer=summary.writer,
        who=summary.who,
        commits={commit.checkpoint: commit for commit in summary.commits},
        aliases=dict(summary.aliases),
        dropped=set(summary.dropped),
        condemned=set(summary.condemned),
    )
