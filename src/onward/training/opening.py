"""How a run begins: which verb, from which checkpoint, and why. Decides; touches nothing live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from onward.errors import Damaged, OnwardError, UnknownCheckpoint, UsageError, WrongVerb
from onward.repository import Commit, Manifest, Repository, open_repository
from onward.repository.manifest import parse_manifest
from onward.stores import open_store, parse

VERBS = ("auto", "resume", "continue", "branch")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A checkpoint that was passed over, and why. `step` is None where it cannot be read."""

    checkpoint: str
    step: int | None
    reason: str

    def sentence(self) -> str:
        """Such as `not step 101 (0f3c…): not in the log: …`."""
        step = "unknown step" if self.step is None else f"step {self.step}"
        return f"not {step} ({self.checkpoint}): {self.reason}"


@dataclass(slots=True)
class Beginning:
    """The decision: `verb` is fresh, resume, continue or branch; `why` says so to people."""

    verb: str
    why: str
    commit: Commit | None = None
    manifest: Manifest | None = None
    increment: int = 1
    rejected: list[Rejected] = field(default_factory=list)
    origin: dict[str, str] | None = None
    taken: str = ""
    """What a branch took, for people, where that does not go without saying."""

    def sentence(self) -> str:
        """The decision for people, in one line."""
        if self.commit is None:
            return f"{self.verb} start: {self.why}"
        commit = self.commit
        return (
            f"{self.verb} from checkpoint {commit.checkpoint} "
            f"(step {commit.step}, epoch {commit.epoch}, increment {commit.increment}): {self.why}"
        )

    def pass_over(self, repository: Repository, reason: str) -> None:
        """Rejects the chosen checkpoint, found damaged when read, for the next intact one."""
        assert self.commit is not None
        tried = self.commit
        self.rejected.append(Rejected(tried.checkpoint, tried.step, f"damaged: {reason}"))
        older = [c for c in repository.history.newest_first() if c.checkpoint not in self._tried()]
        self._go_on_from(*_first_intact(repository, older, self.rejected))

    def _tried(self) -> set[str]:
        return {rejected.checkpoint for rejected in self.rejected}

    def _go_on_from(self, commit: Commit, manifest: Manifest) -> None:
        self.commit, self.manifest = commit, manifest
        self.increment = commit.increment + commit.finished
        self.verb = "continue" if commit.finished else "resume"
        self.why = (
            f"increment {commit.increment} is finished, what comes next is new"
            if commit.finished
            else f"increment {commit.increment} is not finished"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for; `decide` finds out what that means for an output."""

    verb: str = "auto"
    checkpoint: str = ""
    branch_from: str = ""
    on_damage: str = "raise"

    def decide(self, repository: Repository | None) -> Beginning:
        return decide(
            repository,
            verb=self.verb,
            checkpoint=self.checkpoint,
            branch_from=self.branch_from,
            on_damage=self.on_damage,
        )


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
    if branch_from and verb == "auto":
        verb = "branch"
    if repository is None or repository.history.latest() is None:
        return _without_checkpoint(verb, checkpoint, branch_from)
    if verb == "branch":
        raise WrongVerb(
            f"{repository.store.url} already holds {len(repository.history.live())} checkpoints",
            why="a branch begins a new output",
            do="leave --branch away to go on here, or give another output",
        )
    beginning = Beginning(verb, "", rejected=list(_leftovers_as_rejected(repository)))
    beginning._go_on_from(*_choose(repository, checkpoint, on_damage, beginning.rejected))
    if verb not in ("auto", beginning.verb):
        assert beginning.commit is not None
        raise WrongVerb(
            f"cannot {verb} from checkpoint {beginning.commit.checkpoint}",
            why=beginning.why,
            do=f"use --{beginning.verb}, or neither: Onward chooses by itself",
        )
    return beginning


def _without_checkpoint(verb: str, checkpoint: str, branch_from: str) -> Beginning:
    if checkpoint:
        raise UnknownCheckpoint(
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
            raise UsageError(
                "a branch needs the output that it begins from",
                do='give it: branch_from="<output>" or "<output>@<checkpoint>"',
            )
        origin = find_origin(branch_from)
        why = f"weights of checkpoint {origin['checkpoint']} at {origin['url']}, all else fresh"
        return Beginning("branch", why, origin=origin)
    return Beginning("fresh", "the output holds no checkpoint yet")


def find_origin(branch_from: str) -> dict[str, str]:
    """`<output>` or `<output>@<checkpoint>` as the output's URL and the checkpoint's id.

    Raises `NotAnOutput` or `UnknownCheckpoint`.
    """
    url, at, name = branch_from.rpartition("@")
    if not at or "/" in name:
        url, name = branch_from, "latest"
    commit = open_repository(open_store(url)).history.resolve(name)
    return {"url": parse(url).url, "checkpoint": commit.checkpoint}


def _choose(
    repository: Repository, checkpoint: str, on_damage: str, rejected: list[Rejected]
) -> tuple[Commit, Manifest]:
    if checkpoint:
        commit = repository.history.resolve(checkpoint)
        manifest, damage = repository.looked_over(commit)
        if manifest is None:
            raise Damaged(
                f"checkpoint {commit.checkpoint} is damaged", why=damage, do=_see_others(repository)
            )
        return commit, manifest
    if on_damage == "fall-back":
        return _first_intact(repository, repository.history.newest_first(), rejected)
    commit = next(repository.history.newest_first())
    manifest, damage = repository.looked_over(commit)
    if manifest is None:
        raise Damaged(
            f"the newest checkpoint {commit.checkpoint} (step {commit.step}) is damaged",
            why=damage,
            do='go on from the newest intact one with on_damage="fall-back" '
            "(--on-damage fall-back), or restore that file",
        )
    return commit, manifest


def _first_intact(
    repository: Repository, commits: Iterable[Commit], rejected: list[Rejected]
) -> tuple[Commit, Manifest]:
    for commit in commits:
        manifest, damage = repository.looked_over(commit)
        if manifest is not None:
            return commit, manifest
        rejected.append(Rejected(commit.checkpoint, commit.step, f"damaged: {damage}"))
    raise Damaged(
        f"no checkpoint at {repository.store.url} is intact",
        why=f"{len(rejected)} were tried; the newest: {rejected[0].reason if rejected else ''}",
    )


def _see_others(repository: Repository) -> str:
    return f"`onward verify {repository.store.url}` says which checkpoints are intact"


def _leftovers_as_rejected(repository: Repository) -> Iterator[Rejected]:
    """Manifests that no log record names: saves that were cut off before they counted."""
    known = repository.history.commits
    for entry in repository.store.list("onward/manifests/"):
        id_ = entry.key.rpartition("/")[2].removesuffix(".json")
        if id_ in known:
            continue
        try:  # only to tell people its step
            step = parse_manifest(repository.store.read(entry.key), id_).step
        except OnwardError:
            step = None
        yield Rejected(id_, step, "not in the log: its save was cut off before its record")
