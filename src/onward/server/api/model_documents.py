"""The shapes of what is answered about models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """What `--json` of the command line may have more of, goes through."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Brief(BaseModel):
    """A checkpoint in a word."""

    checkpoint: str
    version: int
    step: int
    increment: int
    finished: bool
    time: str
    metrics: dict[str, float | None]


class Forgetting(BaseModel):
    """The holdout that lost most since it was known best."""

    holdout: str
    metric: str
    best: float
    best_increment: int
    now: float | None
    lost: float
    share: float


class Saved(BaseModel):
    """Optimizer steps beside those of retraining each time; `share` of these was saved."""

    share: float
    steps: float
    retrain_steps: float
    increments: int
    estimated: bool


class ModelSummary(BaseModel):
    """A model in lists. What is not known yet is null; `problem` says why it cannot be read."""

    id: str
    location: str
    name: str
    problem: str
    champion: Brief | None
    latest: Brief | None
    checkpoints: int
    increments: int
    worst_forgetting: Forgetting | None
    saved: Saved | None
    synced_at: float | None


class ModelPage(BaseModel):
    """Models by name."""

    items: list[ModelSummary]
    next: str | None


class Delta(BaseModel):
    """Items of an increment's data against the ledger before it; null: not told."""

    items: int | None
    added: int | None
    changed: int | None
    removed: int | None
    known: int | None


class Node(BaseModel):
    """A checkpoint that matters; `between` others lie up to the nearest shown ancestor, `parent`.

    `row` and `lane` are where it is drawn.
    """

    checkpoint: str
    version: int
    step: int
    epoch: int
    increment: int
    finished: bool
    parent: str | None
    between: int
    row: int
    lane: int
    names: list[str]
    pinned: bool
    dropped: bool
    latest: bool
    audited: bool
    verdict: str
    reason: str
    time: str
    metrics: dict[str, float | None]
    stored_bytes: int
    delta: Delta | None


class Lineage(BaseModel):
    """The newest first; `older` are not shown."""

    nodes: list[Node]
    lanes: int
    older: int


class ModelDocument(ModelSummary):
    """A model with its lineage."""

    repository: str
    aliases: dict[str, str]
    pins: list[str]
    generation: int
    claimed_by: str
    lineage: Lineage


class CheckpointSummary(BaseModel):
    """A checkpoint in lists."""

    checkpoint: str
    version: int
    step: int
    epoch: int
    increment: int
    finished: bool
    parent: str | None
    time: str
    stored_bytes: int
    dropped: bool
    metrics: dict[str, float | None]
    reason: str
    verdict: str
    delta: Delta | None
    names: list[str]
    pinned: bool


class CheckpointPage(BaseModel):
    """Checkpoints, the newest first."""

    items: list[CheckpointSummary]
    next: str | None


class TensorDocument(BaseModel):
    """A tensor that a checkpoint holds. Its bytes are never read here."""

    path: str
    kind: str
    dtype: str
    shape: list[int]
    size_bytes: int
    digest: str
    packs: list[str]
    inherited: bool


class TrainedBy(BaseModel):
    """What trained a checkpoint: the job, if one of this server did, and what the script told."""

    job: str | None
    job_name: str | None
    attempt: int | None
    code: dict[str, Any] | None
    command: Any
    config: Any
    host: Any
    seed: Any


class CheckpointDocument(_Open):
    """What made a checkpoint and what it holds: `onward show --json`, and more."""

    model: str
    output: str
    checkpoint: str
    version: int
    step: int
    epoch: int
    increment: int
    finished: bool
    reason: str
    time: str
    parent: str | None
    verb: str
    names: list[str]
    pinned: bool
    children: list[str]
    metrics: dict[str, float | None]
    about: dict[str, Any]
    size_bytes: int
    tensors: list[TensorDocument]
    tensor_count: int
    loaders: dict[str, Any]
    trained_by: TrainedBy


class LearningDocument(_Open):
    """The matrix of scores, holdout by increment, with its summaries and the gate's verdicts."""

    holdouts: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    summaries: list[dict[str, Any]]
    accuracy: list[dict[str, Any]]
    worst_forgetting: Forgetting | None
    verdicts: list[dict[str, Any]]


class DataDocument(BaseModel):
    """What each increment learned from, the newest first."""

    increments: list[dict[str, Any]]


class DifferenceDocument(_Open):
    """How the data of one checkpoint differs from that of another."""

    checkpoint: str
    counts: dict[str, int]
    added: list[str]
    changed: list[str]
    removed: list[str]


class SeenDocument(BaseModel):
    """Which checkpoints learned from an item; `older` were not looked at."""

    item: str
    by: str
    items: list[dict[str, Any]]
    older: int


class SavingsDocument(_Open):
    """What each increment cost beside a full retrain: `onward report --json`."""

    increments: list[dict[str, Any]]
    totals: dict[str, Any]
    audits: list[dict[str, Any]]


class AllSavings(BaseModel):
    """What all models together saved, as far as that is known."""

    models: int
    compared: int
    steps: float
    retrain_steps: float
    share: float | None
    estimated: bool
    items: list[dict[str, Any]]


class Changed(_Open):
    """What was changed."""

    id: str
    kind: str
    checkpoint: str | None


class Damage(_Open):
    """What `onward verify --json` finds."""

    intact: bool
    every_byte: bool
    checkpoints: int
    damaged: list[dict[str, Any]]


class VerificationDocument(BaseModel):
    """A look at every byte of a checkpoint; `findings` when it has ended, `problem` if it could not
    be done."""

    id: str
    model: str
    checkpoint: str
    state: Literal["waiting", "running", "ended", "failed"]
    created_at: float
    created_by: str
    started_at: float | None
    ended_at: float | None
    read_bytes: int
    all_bytes: int
    findings: Damage | None
    problem: dict[str, Any] | None
