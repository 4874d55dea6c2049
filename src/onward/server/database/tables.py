"""Every table. Times are seconds since 1970 (UTC); documents are JSON."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON,
        list[Any]: JSON,
        float: Float(53),
        # Steps and bytes pass 2**31. SQLite's only integer has 64 bits, and counts by itself.
        int: BigInteger().with_variant(Integer(), "sqlite"),
    }


# Work.


class Job(Base):
    """What was asked for. Every move raises `version`; every attempt raises `generation`."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_time", "created_at", "id"),
        Index("jobs_by_state", "state", "created_at"),
        Index("jobs_by_output", "output"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    wanted: Mapped[str] = mapped_column(String(16), default="run")
    version: Mapped[int] = mapped_column(default=1)
    generation: Mapped[int] = mapped_column(default=0)
    spec: Mapped[dict[str, Any]]
    output: Mapped[str] = mapped_column(Text)
    """`alias:path`. One job at a time trains an output."""
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))
    updated_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    run_at: Mapped[float | None]
    """In `backoff`: when it is queued again."""
    cause: Mapped[str] = mapped_column(String(32), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it is in this state, a sentence."""
    parent: Mapped[str | None] = mapped_column(String(32))
    """The job that it continues or tries again."""
    schedule: Mapped[str | None] = mapped_column(String(32), index=True)
    retried: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Attempts spent by cause."""
    fruitless: Mapped[int] = mapped_column(default=0)
    """Failed attempts in a row that committed nothing new."""
    committed: Mapped[bool] = mapped_column(default=False)
    """Whether one of its attempts committed: the next goes on from there, whatever was asked."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """As the newest event told: step, epoch, batch, batches, metrics, checkpoint, behind, moved."""


class Attempt(Base):
    """One try at a job; its folder is named by `id`."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job", "number"),
        Index("attempts_by_state", "state"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    """The job's generation when it was created."""
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(default=1)
    engine: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(200), default="")
    pid: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    leased_at: Mapped[float | None]
    running_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    asked: Mapped[str] = mapped_column(String(16), default="")
    """The strongest request left for its agent."""
    asked_why: Mapped[str] = mapped_column(String(16), default="")
    """pause, stop, cancel, hang or timeout."""
    asked_at: Mapped[float | None]
    exit_status: Mapped[int | None]
    cause: Mapped[str] = mapped_column(String(32), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    verb: Mapped[str] = mapped_column(String(16), default="")
    checkpoint: Mapped[str] = mapped_column(String(64), default="")
    """It began from this one."""
    step: Mapped[int | None]
    saves: Mapped[int] = mapped_column(default=0)
    offset: Mapped[int] = mapped_column(default=0)
    """Bytes of events.jsonl that the database knows."""
    heard_at: Mapped[float | None]
    """When a step or a line of its log was last seen."""
    outcome: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Move(Base):
    """A change of state, of a job or one of its attempts, in the transaction that made it."""

    __tablename__ = "moves"
    __table_args__ = (Index("moves_by_job", "job", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float]
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[str | None] = mapped_column(String(32))
    before: Mapped[str] = mapped_column(String(16))
    after: Mapped[str] = mapped_column(String(16))
    by: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text, default="")


class Schedule(Base):
    """Submits jobs by the clock (`cron`) or when a data location has something new (`watch`)."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(8))
    cron: Mapped[str] = mapped_column(String(200), default="")
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    spec: Mapped[dict[str, Any]]
    enabled: Mapped[bool] = mapped_column(default=True)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))
    next_at: Mapped[float | None]
    looked_at: Mapped[float | None]
    seen: Mapped[str] = mapped_column(String(64), default="")
    """Digest of the listing that the last job was submitted for."""
    pending: Mapped[str] = mapped_column(String(64), default="")
    """A newer listing, seen once: a job is submitted when it is seen twice, so is complete."""
    last_job: Mapped[str | None] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text, default="")


# What jobs need.


class Storage(Base):
    """A place that an administrator allows; jobs name it by its alias."""

    __tablename__ = "storages"

    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    single_writer: Mapped[bool] = mapped_column(default=False)
    environment: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Variable of the environment → name of the secret that it gets."""
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))


class Secret(Base):
    """That a secret exists; its value is a file (`Settings.secrets`)."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))


class Code(Base):
    """Code as it was at submission, by the digest of its files."""

    __tablename__ = "code"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    source: Mapped[dict[str, Any]]
    files: Mapped[int]
    size_bytes: Mapped[int]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))


# What outputs hold, as last seen.


class Model(Base):
    """An output that a job trained or an administrator named, as its log was at `seq`."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    location: Mapped[str] = mapped_column(Text, unique=True)
    """`alias:path`."""
    name: Mapped[str] = mapped_column(String(200))
    repository: Mapped[str] = mapped_column(String(64), default="")
    seq: Mapped[int] = mapped_column(default=-1)
    champion: Mapped[str] = mapped_column(String(64), default="")
    latest: Mapped[str] = mapped_column(String(64), default="")
    increments: Mapped[int] = mapped_column(default=0)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Summaries for the list: forgetting, saved compute, aliases."""
    created_at: Mapped[float]
    synced_at: Mapped[float | None]
    problem: Mapped[str] = mapped_column(Text, default="")


class Checkpoint(Base):
    """A checkpoint of a model, as its log's record tells."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("checkpoints_by_version", "model", "version"),)

    model: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int]
    increment: Mapped[int]
    finished: Mapped[bool]
    parent: Mapped[str | None] = mapped_column(String(64))
    time: Mapped[str] = mapped_column(String(40))
    stored_bytes: Mapped[int]
    dropped: Mapped[bool] = mapped_column(default=False)
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Verification(Base):
    """A look at every byte of a checkpoint, asked for before it begins. The newest ended one of a
    checkpoint is kept."""

    __tablename__ = "verifications"
    __table_args__ = (
        Index("verifications_by_checkpoint", "model", "checkpoint", "created_at"),
        Index("verifications_by_state", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(32))
    checkpoint: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    """waiting, running, ended (with findings), or failed (with a problem)."""
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    read_bytes: Mapped[int] = mapped_column(default=0)
    all_bytes: Mapped[int] = mapped_column(default=0)
    findings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    problem: Mapped[dict[str, Any]] = mapped_column(default=dict)


# Who may what, and who did what.


class Token(Base):
    """A bearer token: only its digest is kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(8))
    """read, write or admin; each includes those before."""
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    used_at: Mapped[float | None]


class ConsoleSession(Base):
    """A browser that showed a token; its cookie is kept as a digest."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    token: Mapped[str] = mapped_column(ForeignKey("tokens.id"))
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    expires_at: Mapped[float]


class Answer(Base):
    """What a POST with an Idempotency-Key was answered, in the transaction of its effect."""

    __tablename__ = "answers"

    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    """Digest of method, path and body."""
    status: Mapped[int]
    """0 while its effect, which is outside of the database, is under way."""
    body: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float] = mapped_column(index=True)


class Audit(Base):
    """Who did what, when, from where."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float]
    by: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(Text)
    remote: Mapped[str] = mapped_column(String(64), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Webhook(Base):
    """Where to tell moves of jobs; signed with a secret."""

    __tablename__ = "webhooks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(64))
    """Name of the secret that signs."""
    allow_private: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(200))


class Delivery(Base):
    """A message to a webhook, written in the transaction that it tells of; sent afterwards."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_due", "done_at", "next_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    webhook: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]]
    tries: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float]
    done_at: Mapped[float | None]
    problem: Mapped[str] = mapped_column(Text, default="")
