"""How a run begins: which verb, from which checkpoint, and why. Decides; touches nothing live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from onward.errors import Damaged, UsageError, WrongVerb
from onward.repository import Commit, Manifest, Repository

VERBS = ("auto", "resume", "continue", "branch")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A checkpoint that is newer than the chosen one, and why it was not chosen."""

    checkpoint: str
    step: int | None
    reason: str


@dataclass(slots=True)
class Beginning:
    """The decision: `verb` is fresh, resume, continue or branch; `why` says so to people."""

    verb: str
    why: str
    commit: Commit | None = None
    manifest: Manifest | None = None
    increment: int = 1
    rejected: list[Rejected] = field(default_factory=list)


def decide(
    repository: Repository | None,
    *,
    verb: str = "auto",
    checkpoint: str = "",
    branch_from: str = "",
    on_damage: str = "raise",
) -> Beginning:
    """Chooses the checkpoint to go on from and the verb that is right for it.

    `repository` is None for an output that does not exist yet. `checkpoint` names one instead of
    the newest. With `on_damage="fall-back"` a damaged newest checkpoint is passed over for the
    newest intact one, and `rejected` says what was wrong.

    Raises `WrongVerb` when `verb` demands the impossible, naming the right one; `Damaged`;
    `UnknownCheckpoint`.
    """
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb!r}", do=f"use one of {', '.join(VERBS)}")
    if on_damage not in ("raise", "fall-back"):
        raise UsageError(f"on_damage is {on_damage!r}", do='use "raise" or "fall-back"')
    if repository is None or repository.history.latest() is None:
        return _without_checkpoint(repository, verb, checkpoint, branch_from)
    if verb == "branch":
        raise WrongVerb(
            f"{repository.store.url} already holds {len(repository.history.live())} checkpoints",
            why="a branch begins a new output",
            do="leave --branch away to go on here, or give another output",
        )
    rejected = list(_leftovers_as_rejected(repository))
    commit, manifest = _choose(repository, checkpoint, on_damage, rejected)
    right = "continue" if commit.finished else "resume"
    if verb not in ("auto", right):
        raise WrongVerb(
            f"cannot {verb} from checkpoint {commit.checkpoint}",
            why=f"increment {commit.increment} is " + ("finished" if commit.finished else "unfinished"),
            do=f"use --{right}, or neither: Onward chooses {right} by itself",
        )
    why = (
        f"increment {commit.increment} is finished, what comes next is new"
        if commit.finished
        else f"increment {commit.increment} is not finished"
    )
    return Beginning(
        verb=right,
        why=why,
        commit=commit,
        manifest=manifest,
        increment=commit.increment + commit.finished,
        rejected=rejected,
    )


def _without_checkpoint(
    repository: Repository | None, verb: str, checkpoint: str, branch_from: str
) -> Beginning:
    if checkpoint:
        if repository is not None:
            repository.history.resolve(checkpoint)
        raise WrongVerb(
            f"there is no checkpoint {checkpoint!r}",
            why="the output holds none yet",
            do="start without naming one",
        )
    if verb in ("resume", "continue"):
        raise WrongVerb(
            f"cannot {verb}",
            why="the output holds no checkpoint yet",
            do="leave the flag away: the first run starts fresh",
        )
    if verb == "branch":
        if not branch_from:
            raise UsageError("branch needs the output that it branches from")
        return Beginning("branch", f"weights of {branch_from}, everything else fresh")
    return Beginning("fresh", "the output holds no checkpoint yet")


def _choose(
    repository: Repository, checkpoint: str, on_damage: str, rejected: list[Rejected]
) -> tuple[Commit, Manifest]:
    if checkpoint:
        commit = repository.history.resolve(checkpoint)
        damage = repository.damage(commit)
        if damage:
            raise Damaged(
                f"checkpoint {commit.checkpoint} is damaged", why=damage, do=_see_others(repository)
            )
        return commit, repository.manifest(commit)
    for commit in repository.history.newest_first():
        damage = repository.damage(commit)
        if not damage:
            return commit, repository.manifest(commit)
        rejected.append(Rejected(commit.checkpoint, commit.step, f"damaged: {damage}"))
        if on_damage == "raise":
            raise Damaged(
                f"the newest checkpoint {commit.checkpoint} (step {commit.step}) is damaged",
                why=damage,
                do='go on from the newest intact one with on_damage="fall-back" '
                "(--on-damage fall-back), or restore that file",
            )
    raise Damaged(
        f"no checkpoint at {repository.store.url} is intact",
        why=f"{len(rejected)} were tried, the newest: {rejected[0].reason if rejected else ''}",
    )


def _see_others(repository: Repository) -> str:
    return f"`onward verify {repository.store.url}` says which checkpoints are intact"


def _leftovers_as_rejected(repository: Repository) -> Iterator[Rejected]:
    """Manifests that no log record names: saves that were cut off before they counted."""
    known = repository.history.commits
    for entry in repository.store.list("onward/manifests/"):
        id_ = entry.key.rpartition("/")[2].removesuffix(".json")
        if id_ not in known:
            yield Rejected(id_, None, "not in the log: its save was cut off before its record")
