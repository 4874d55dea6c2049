"""The folded log, stored as a cache that keeps opening cheap (docs/format.md §5)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from onward.errors import RepositoryError, StoreError, Unreachable
from onward.repository.documents import (
    FORMAT,
    MAX_RECORD_BYTES,
    MAX_SUMMARY_BYTES,
    check_seal,
    digest_of,
    make_ready,
    with_seal,
)
from onward.repository.history import History
from onward.repository.records import (
    AUDIT_FORMAT,
    Audit,
    CheckpointId,
    Commit,
    Count,
    Digest,
    Hex32,
    ManifestName,
    ManifestPlace,
    Text,
    may_be_alias,
    parse_record,
    pin_name,
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
    writer: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")]
    who: Text
    commits: list[Commit]
    aliases: dict[str, CheckpointId]
    pins: list[CheckpointId]
    dropped: list[CheckpointId]
    moved: dict[CheckpointId, ManifestPlace]
    condemned: dict[Hex32, Count]
    outdated: dict[ManifestName, Count]
    audits: list[Audit] = []  # early versions did not write it, nor could they read a log with one
    digest: str = ""


def summary_bytes(history: History) -> bytes:
    """The stored form."""
    audits = [audit for of_one in history.audits.values() for audit in of_one]
    summary = Summary(
        # So that a version that knows no audits reads the log, and finds that it is newer.
        format=AUDIT_FORMAT if audits else FORMAT,
        repository=history.repository,
        seq=history.seq,
        record_digest=history.head_digest,
        generation=history.generation,
        writer=history.writer,
        who=history.who,
        commits=list(history.commits.values()),
        aliases=dict(history.aliases),
        pins=sorted(history.pins),
        dropped=sorted(history.dropped),
        moved=dict(sorted(history.moved.items())),
        condemned=dict(sorted(history.condemned_at.items())),
        outdated=dict(sorted(history.outdated_at.items())),
        audits=sorted(audits, key=lambda audit: audit.seq),
    )
    return with_seal(msgspec.json.encode(summary))


def write_summary(store: Store, history: History) -> None:
    """Replaces the stored summary."""
    data = summary_bytes(history)
    store.put(SUMMARY_KEY, [data], len(data))


def read_summary(store: Store) -> History | None:
    """The stored summary as a history, or None where there is none that can be trusted.

    Never an authority: anything odd about it means reading the log instead.
    """
    try:
        data = store.read(SUMMARY_KEY, 0, MAX_SUMMARY_BYTES + 1)
        check_seal(data, name=SUMMARY_KEY)
        # Ten times as quick as reading it like other documents. It is less strict about the form,
        # but nobody depends on what a summary says.
        make_ready(Summary)
        summary = msgspec.json.decode(data, type=Summary)
        if summary.format not in (FORMAT, AUDIT_FORMAT) or len(data) > MAX_SUMMARY_BYTES:
            return None
        stored = store.read(record_key(summary.seq), 0, MAX_RECORD_BYTES + 1)
        if digest_of(stored) != summary.record_digest:
            return None
        record = parse_record(stored, summary.seq)
    except Unreachable:
        raise
    except (RepositoryError, StoreError, msgspec.DecodeError, ValueError, RecursionError):
        return None
    history = History(
        repository=summary.repository,
        seq=summary.seq,
        head_digest=summary.record_digest,
        generation=summary.generation,
        writer=summary.writer,
        who=summary.who,
        commits={commit.checkpoint: commit for commit in summary.commits},
        aliases=dict(summary.aliases),
        pins=set(summary.pins),
        dropped=set(summary.dropped),
        moved=dict(summary.moved),
        condemned_at=dict(summary.condemned),
        outdated_at=dict(summary.outdated),
    )
    for audit in summary.audits:
        history.audits.setdefault(audit.checkpoint, []).append(audit)
    agrees = record.generation == history.generation and _hangs_together(history)
    return history if agrees and len(history.commits) == len(summary.commits) else None


def _hangs_together(history: History) -> bool:
    """Whether some log could have made this: a forger can compute a digest as well as we can."""
    seqs = [commit.seq for commit in history.commits.values()]
    live = history.commits.keys() - history.dropped
    return (
        seqs == sorted(set(seqs))
        and all(0 < seq <= history.seq for seq in seqs)
        and history.dropped <= history.commits.keys()
        and all(may_be_alias(name) and id_ in live for name, id_ in history.aliases.items())
        and not any(name == pin_name(id_) for name, id_ in history.aliases.items())
        and history.pins <= live
        and history.moved.keys() <= history.commits.keys()
        and all(place.name.startswith(f"{id_}-") for id_, place in history.moved.items())
        and all(seq <= history.seq for seq in history.condemned_at.values())
        and all(seq <= history.seq for seq in history.outdated_at.values())
        and all(
            (history.manifest_place(commit).name in history.outdated_at) == (id_ not in live)
            for id_, commit in history.commits.items()
        )
        and history.audits.keys() <= history.commits.keys()
        and all(audit.seq <= history.seq for one in history.audits.values() for audit in one)
        and all(c.parent is None or c.parent in history.commits for c in history.commits.values())
    )
