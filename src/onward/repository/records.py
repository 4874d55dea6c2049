"""The records of the log: their fields, their checks, their bytes (docs/format.md §2)."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from onward.errors import Damaged, Unstorable, UsageError
from onward.repository.documents import (
    FORMAT,
    MAX_COUNT,
    MAX_RECORD_BYTES,
    check_seal,
    convert,
    from_bytes,
    sealed,
)

NO_DIGEST = "0" * 64
MAX_TEXT = 2000
MAX_HOLDOUTS = 1000
MAX_HOLDOUT_NAME = 64

Hex32: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
CheckpointId: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Digest: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
ManifestName: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}(-[0-9a-f]{8})?\Z")]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Metrics: TypeAlias = dict[str, float | None]
HoldoutName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_HOLDOUT_NAME)]
Row: TypeAlias = Annotated[dict[HoldoutName, float | None], Meta(max_length=MAX_HOLDOUTS)]

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_COMPUTED = re.compile(r"latest|best|v[0-9]+")
_LOOKS_LIKE_ID = re.compile(r"[0-9a-f]{4,16}")
_PIN = re.compile(r"pin-[0-9a-f]{16}")

# Kinds that the first version did not have bear a higher format: it refuses them as newer.
_REPACK_FORMAT = 2
AUDIT_FORMAT = 3
_NEWEST_FORMAT = AUDIT_FORMAT


class DocumentRef(Struct, frozen=True):
    """A document named by what it must contain."""

    digest: Digest
    size: Count


class Record(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every record carries."""

    format: int = FORMAT
    seq: Count
    record: Hex32
    writer: Hex32
    generation: Count
    time: Text
    prev: Digest


class Open(Record, frozen=True, kw_only=True, tag="open"):
    """Record 0: this place is an output."""

    repository: Hex32
    made_by: Text


class Claim(Record, frozen=True, kw_only=True, tag="claim"):
    """A writer takes over."""

    who: Text


class Missed(Struct, frozen=True):
    """A save that failed before a commit, and why."""

    step: Count
    why: Text


class FrozenHoldout(Struct, frozen=True):
    """In which increment a holdout was frozen, and what its scores mean."""

    increment: Count
    metric: Annotated[str, Meta(max_length=MAX_HOLDOUT_NAME)]
    lower: bool = False
    """Whether a lower score is a better one."""


class Scores(Struct, frozen=True, kw_only=True):
    """How an increment scored on the frozen holdouts: its row of the evaluation matrix.

    `after` it learned, and `before`: null stands for a score that was not finite, and a holdout
    that was not scored is absent. `frozen` names all holdouts that there are.
    """

    after: Row = {}
    before: Row = {}
    frozen: Annotated[dict[HoldoutName, FrozenHoldout], Meta(max_length=MAX_HOLDOUTS)] = {}
    verdict: Text = ""


class Commit(Record, frozen=True, kw_only=True, tag="commit"):
    """A checkpoint exists from here on."""

    checkpoint: CheckpointId
    step: Count
    epoch: Count
    increment: Count
    parent: CheckpointId | None
    finished: bool
    reason: Text
    manifest: DocumentRef
    stored: Count
    metrics: Metrics = {}
    missed: list[Missed] | msgspec.UnsetType = msgspec.UNSET
    scores: Scores | msgspec.UnsetType = msgspec.UNSET

    @property
    def failed_before(self) -> list[Missed]:
        """The saves that failed between the last commit of this process and this one."""
        return [] if self.missed is msgspec.UNSET else self.missed

    @property
    def row(self) -> Scores | None:
        """Its row of the evaluation matrix; None where nothing was scored."""
        return None if self.scores is msgspec.UNSET else self.scores


class Alias(Record, frozen=True, kw_only=True, tag="alias"):
    """A name points to a checkpoint, or (null) is removed."""

    name: Text
    checkpoint: CheckpointId | None


class Drop(Record, frozen=True, kw_only=True, tag="drop"):
    """Checkpoints are forgotten and packs condemned."""

    checkpoints: list[CheckpointId]
    packs: list[Hex32]


class ManifestPlace(Struct, frozen=True):
    """Where a manifest is that is not, or no longer, called like its checkpoint."""

    name: ManifestName
    digest: Digest
    size: Count


class Repack(Record, frozen=True, kw_only=True, tag="repack"):
    """The bytes of checkpoints lie in other packs from here on; the old packs are condemned."""

    format: int = _REPACK_FORMAT
    manifests: dict[CheckpointId, ManifestPlace]
    packs: list[Hex32]


class Audit(Record, frozen=True, kw_only=True, tag="audit"):
    """A full retrain was trained beside a checkpoint: what it cost, and how it scored.

    `share` of the data it was trained on: 1 is a full retrain, less is a sample of it. `samples`
    is null where the script did not tell. `metrics` and `scores` are those of its last checkpoint.
    """

    format: int = AUDIT_FORMAT
    checkpoint: CheckpointId
    """The checkpoint that was audited."""
    retrain: CheckpointId
    """The last checkpoint of the audit itself, which need not exist any more."""
    share: Annotated[float, Meta(gt=0, le=1)]
    steps: Count
    samples: Count | None
    seconds: Annotated[float, Meta(ge=0)]
    stored: Count
    made_by: Text
    metrics: Metrics = {}
    scores: Scores = Scores()


AnyRecord: TypeAlias = Open | Claim | Commit | Alias | Drop | Repack | Audit
_FORMATS: dict[type[Record], int] = {Repack: _REPACK_FORMAT, Audit: AUDIT_FORMAT}
_ANY_RECORD: Any = AnyRecord  # a union is not a type to the checker, but it is one to msgspec


def parse_record(data: bytes, seq: int) -> AnyRecord:
    """The record stored in slot `seq`, or `Damaged` / `NewerFormat`."""
    name = f"log record {seq}"
    document = from_bytes(data, name=name, max_bytes=MAX_RECORD_BYTES, newest=_NEWEST_FORMAT)
    check_seal(data, name=name)
    record: AnyRecord = convert(document, _ANY_RECORD, name=name)
    if record.seq != seq:
        raise Damaged(f"{name} says that it is record {record.seq}")
    if record.format != _FORMATS.get(type(record), FORMAT):
        raise Damaged(f"{name} is not a valid document", why=f"format {record.format} of its kind")
    return record


def record_bytes(record: AnyRecord) -> bytes:
    """The stored form of a record, or `Unstorable` if no reader would accept it.

    Records stay for ever: one that cannot be read would end the log for good.
    """
    try:
        data = sealed(msgspec.to_builtins(record))
        parse_record(data, record.seq)
    except (Damaged, ValueError, TypeError) as error:
        kind = type(record).__name__.lower()
        why = error.why or error.what if isinstance(error, Damaged) else str(error)
        raise Unstorable(f"this {kind} cannot be recorded", why=why) from error
    return data


def for_people(text: str) -> str:
    """`text` as a document can hold it: no half surrogate pairs, not too long."""
    return text.encode("utf-8", "replace").decode("utf-8")[:MAX_TEXT]


def record_key(seq: int) -> str:
    return f"onward/log/{seq:020d}.json"


def may_be_alias(name: str) -> bool:
    """Whether an alias may be called so."""
    return bool(
        _ALIAS.fullmatch(name)
        and not _COMPUTED.fullmatch(name)
        and not _LOOKS_LIKE_ID.fullmatch(name)
    )


def pin_name(checkpoint: str) -> str:
    """The name that pins a checkpoint: an alias, so that every version protects it."""
    return f"pin-{checkpoint}"


def checked_alias(name: str) -> str:
    """`name` itself if an alias may be called so, else `UsageError`."""
    if _COMPUTED.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be assigned", why="it is computed from the log", do="use another name"
        )
    if _PIN.fullmatch(name):
        raise UsageError(f"{name!r} is the name of a pin", do="use `onward pin`, or another name")
    if not may_be_alias(name):
        raise UsageError(
            f"{name!r} is not a valid alias",
            why="an alias is a letter, then letters, digits, '.', '_' or '-', at most 64 of them, "
            "and does not look like a checkpoint id",
        )
    return name


def new_hex32() -> str:
    """A fresh 128-bit identifier."""
    return secrets.token_hex(16)


def new_manifest_name(checkpoint: str) -> str:
    """A fresh name for another manifest of a checkpoint."""
    return f"{checkpoint}-{secrets.token_hex(4)}"


def new_checkpoint_id() -> str:
    return secrets.token_hex(8)


def now() -> str:
    """The present time. It informs people, and tells when bytes that nobody needs may go."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
