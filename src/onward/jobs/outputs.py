"""The output of a job, a folder or an object store, behind the same verbs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onward.errors import Damaged, NotAnOutput, OnwardError, UsageError
from onward.jobs.display import Display, Passed, counted, size
from onward.jobs.files import PlainFiles, Selection, grows, newest_torn
from onward.jobs.leftover import end_leftover_script
from onward.jobs.open_files import FileId
from onward.jobs.scanning import Token, move_aside, scan
from onward.jobs.spec import JobSpec
from onward.jobs.torn import why_torn
from onward.repository import Commit, History, Repository, Writer, open_or_create, open_repository
from onward.repository.fetching import check_space
from onward.repository.mirror import Mirror, missing_bytes
from onward.stores import LocalStore, Store, open_store, parse
from onward.training.opening import Asked, Beginning
from onward.training.places import WorkingFolder

_FENCE_EVERY_S = 5.0


@dataclass(slots=True)
class Pushed:
    """What went to the output so far: bytes to its store, commits to its store, plain files."""

    size_bytes: int = 0
    commits: list[str] = field(default_factory=list)
    files: int = 0


class JobOutput(Protocol):
    """Where a job's checkpoints and files go. `folder` is what the script sees as its output."""

    folder: Path
    working: WorkingFolder | None
    pushed: Pushed

    def look(self) -> History:
        """Every checkpoint that exists on this machine, those not pushed yet among them."""

    def catch_up(self) -> Repository:
        """Settles what an earlier job left, and returns the repository that decides."""

    def bytes_to_fetch(self) -> int:
        """What `prepare` would fetch at the first attempt."""

    def prepare(self, asked: Asked) -> Beginning:
        """Decides how to begin and has everything that this needs in `folder`, verified."""

    def claim(self, who: str) -> Writer:
        """Takes over as the one writer."""

    def push(self, open_files: Callable[[], set[FileId]]) -> None:
        """While the script runs: pushes commits and whole files. Raises `Fenced`, `StoreError`."""

    def push_rest(self, *, in_order: bool) -> None:
        """The script has ended, in good order or not: the last push. Raises as `push` does."""

    def unpushed(self) -> list[str]:
        """What is not at the store, in words."""

    def release(self) -> None:
        """Lets others on this machine have `folder`."""


def open_output(spec: JobSpec, display: Display) -> JobOutput:
    """The output of a job, ready for its attempts; it is made if it does not exist."""
    if parse(spec.output).is_local:
        return FolderOutput(spec, display)
    return StoreOutput(spec, display)


def existing_repository(store: Store) -> Repository | None:
    """The repository at a store; None where there is none yet. Changes nothing."""
    try:
        return open_repository(store)
    except NotAnOutput:
        return None


def refuse_start_over(spec: JobSpec, history: History | None) -> None:
    """`--predownload no` cannot go on from checkpoints, nor start over beside them."""
    if spec.predownload == "no" and history is not None and history.latest() is not None:
        raise UsageError(
            f"{parse(spec.output).display} holds {counted(len(history.live()), 'checkpoint')}",
            why="with --predownload no none of them is fetched, and a fresh start in the same "
            "output would bury them",
            do="leave --predownload away to go on from the newest, or give another --output "
            f"(with --branch {spec.output} it begins with their weights)",
        )


class FolderOutput:
    """An output on this machine: the folder itself."""

    def __init__(self, spec: JobSpec, display: Display) -> None:
        self._spec = spec
        self._display = display
        self._store = LocalStore(parse(spec.output).prefix)
        self._generation: int | None = None
        self._before: dict[str, Token] = {}
        self.folder = self._store.folder
        self.working: WorkingFolder | None = None
        self.pushed = Pushed()
        # Whatever is impossible must be said before the folder becomes an output.
        existing = existing_repository(self._store)
        refuse_start_over(spec, existing.history if existing else None)
        spec.asked().decide(existing)
        self._repository = open_or_create(self._store, single_writer=spec.single_writer)
        self._store.sweep_temporaries("onward/")

    def look(self) -> History:
        self._repository.refresh()
        return self._repository.history

    def catch_up(self) -> Repository:
        self._repository.refresh()
        return self._repository

    def bytes_to_fetch(self) -> int:
        return 0

    def prepare(self, asked: Asked) -> Beginning:
        tokens, _ = scan(self._store)
        for key, why in newest_torn(self._store, tokens):
            self._set_aside(key, why)
        self._before = scan(self._store)[0]
        return asked.decide(self._repository)

    def claim(self, who: str) -> Writer:
        writer = self._repository.claim(who)
        self._generation = writer.generation
        return writer

    def push(self, open_files: Callable[[], set[FileId]]) -> None:
        self._repository.refresh()
        self._repository.log.check_fence(self._generation)

    def push_rest(self, *, in_order: bool) -> None:
        for key, token in scan(self._store)[0].items():
            if self._before.get(key) == token:
                continue
            why = "" if in_order else why_torn(self._store.path(key))
            if why:
                self._set_aside(key, why)
            elif not grows(key):
                self.pushed.files += 1
            self._before[key] = token
        self._repository.refresh()
        self._repository.log.check_fence(self._generation)

    def unpushed(self) -> list[str]:
        return []

    def release(self) -> None:
        return

    def _set_aside(self, key: str, why: str) -> None:
        aside = move_aside(self._store, key, self.folder / "onward-torn")
        self._display.say(f"{key} is torn ({why}): moved to {aside}")


class StoreOutput:
    """An output on an object store: a working copy on this machine that is pushed."""

    def __init__(self, spec: JobSpec, display: Display) -> None:
        self._spec = spec
        self._display = display
        self._remote = open_store(spec.output)
        self._generation: int | None = None
        self.pushed = Pushed()
        self._next_fence_s = 0.0
        # Whatever is impossible must be said before the place becomes an output.
        existing = existing_repository(self._remote)
        refuse_start_over(spec, existing.history if existing else None)
        if existing is None:
            spec.asked().decide(None)
        self.working: WorkingFolder | None = WorkingFolder(spec.output)
        try:
            self.folder = Path(os.path.abspath(self.working.output))
            end_leftover_script(self.working.path, grace_s=spec.grace_s, say=display.say)
            self._mirror = Mirror(
                LocalStore(self.folder), self._remote, single_writer=spec.single_writer
            )
            self._files = PlainFiles(
                self._remote, self.folder.parent, say=display.say, passed=self._count
            )
            self._repository = self._mirror.remote
            self._files.belong_to(self._repository.history.repository)
        except BaseException:
            self.working.release()
            raise

    def look(self) -> History:
        return self._mirror.local.refresh()

    def catch_up(self) -> Repository:
        stranded = self._mirror.pull_log(on_pushed=self._on_pushed)
        if stranded.folder is not None:
            self._display.say(
                f"{counted(len(stranded.commits), 'checkpoint')} of an earlier job on this machine cannot be "
                f"pushed: {stranded.why}. They are kept in {stranded.folder}"
            )
        self._files.catch_up(self._repository.history.generation, self._display)
        return self._repository

    def bytes_to_fetch(self) -> int:
        if self._repository.history.latest() is None:
            return self._files.select(self._spec.predownload).size_bytes
        beginning = self._spec.asked().decide(self._repository)
        return self._bytes_of(beginning, self._files.select(self._spec.predownload))

    def prepare(self, asked: Asked) -> Beginning:
        beginning = asked.decide(self._repository)
        if self._spec.predownload == "no":
            self._hide_files()
        selection = self._files.select(self._spec.predownload)
        check_space(self.folder, self._bytes_of(beginning, selection))
        while beginning.commit is not None:
            try:
                self._fetch_checkpoints([beginning.commit])
                break
            except Damaged as error:
                if asked.on_damage != "fall-back" or asked.checkpoint:
                    raise
                beginning.pass_over(self._repository, error.what)
        if self._spec.predownload == "all":
            self._fetch_all()
        for line in selection_lines(selection):
            self._display.say(line)
        self._files.pull(selection, self._display)
        return beginning

    def claim(self, who: str) -> Writer:
        writer = self._mirror.claim(who)
        self._generation = writer.generation
        self._files.written_in(writer.generation)
        return writer

    def push(self, open_files: Callable[[], set[FileId]]) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_fence_s:
            self._check_fence()
            self._next_fence_s = now_s + _FENCE_EVERY_S
        self._mirror.push(progress=self._count, on_pushed=self._on_pushed)
        self._files.push_whole(open_files, allowed=self._check_fence)
        self.pushed.files = self._files.pushed_files

    def push_rest(self, *, in_order: bool) -> None:
        self._files.judge(in_order=in_order)
        self._check_fence()
        left = self._mirror.unpushed()
        if left:
            total = sum(commit.stored for commit in left)
            title = f"pushing {counted(len(left), 'checkpoint')}"
            with self._display.transfer(title, total) as passed:
                self._mirror.push(
                    progress=lambda count: self._count(count, passed), on_pushed=self._on_pushed
                )
        self._files.push_rest(self._display)
        self._files.note_versions()
        self.pushed.files = self._files.pushed_files

    def unpushed(self) -> list[str]:
        try:
            commits = self._mirror.unpushed()
        except OnwardError as error:
            return [f"the local log cannot be read: {error.what}"]
        return [f"checkpoint {c.checkpoint} (step {c.step})" for c in commits] + [
            f"file {key}" for key in self._files.unpushed()
        ]

    def release(self) -> None:
        assert self.working is not None
        self.working.release()

    # Predownload.

    def _bytes_of(self, beginning: Beginning, selection: Selection) -> int:
        manifests = [beginning.manifest] if beginning.manifest is not None else []
        if self._spec.predownload == "all":
            manifests = self._mirror.manifests(self._intact())
        return missing_bytes(self._mirror.local_store, manifests) + selection.size_bytes

    def _intact(self) -> list[Commit]:
        """What `--predownload all` means: every checkpoint, those known to be damaged left away
        only if damage may be passed over."""
        live = self._repository.history.live()
        if self._spec.on_damage == "raise":
            return live
        return [commit for commit in live if not self._repository.damage(commit)]

    def _fetch_all(self) -> None:
        commits = self._intact()
        try:
            self._fetch_checkpoints(commits)
        except Damaged:
            if self._spec.on_damage == "raise":
                raise
            for commit in commits:
                try:
                    self._fetch_checkpoints([commit])
                except Damaged as error:
                    self._display.say(f"not fetched: checkpoint {commit.checkpoint}: {error.what}")

    def _fetch_checkpoints(self, commits: list[Commit]) -> None:
        manifests = self._mirror.manifests(commits)
        if not missing_bytes(self._mirror.local_store, manifests):
            self._mirror.pull(manifests)  # verifies what is here
            return
        packs = {pack: ref.size for manifest in manifests for pack, ref in manifest.packs.items()}
        what = counted(len(commits), "checkpoint")
        if len(commits) == 1:
            what = f"checkpoint {commits[0].checkpoint} (step {commits[0].step})"
        with self._display.transfer(f"fetching {what}", sum(packs.values())) as passed:
            self._mirror.pull(manifests, progress=passed)

    def _hide_files(self) -> None:
        if self._generation is not None:
            return  # a later attempt goes on from what the first one wrote
        hidden = self._files.hide_pushed()
        if hidden:
            self._display.say(f"{counted(hidden, 'plain file')} stay at the store")

    def _check_fence(self) -> None:
        self._repository.refresh()
        self._repository.log.check_fence(self._generation)

    def _count(self, count: int, passed: Passed | None = None) -> None:
        self.pushed.size_bytes += count
        if passed is not None:
            passed(count)

    def _on_pushed(self, commit: Commit) -> None:
        self.pushed.commits.append(commit.checkpoint)
        self._display.say(
            f"pushed checkpoint {commit.checkpoint} (step {commit.step}, {size(commit.stored)})"
        )


def selection_lines(selection: Selection) -> list[str]:
    """Which plain files were chosen, by which rule, and what was passed over for what."""
    found = len(selection.fetched) + len(selection.here) + len(selection.newer_here)
    if not found:
        return []
    lines = [f"plain files: {selection.rule}"]
    instead: dict[str, list[str]] = {}
    for key, newest in selection.passed_over.items():
        instead.setdefault(newest, []).append(key)
    for newest, keys in sorted(instead.items()):
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        lines.append(f"plain files: {newest}, not {shown}")
    if selection.newer_here:
        lines.append(f"plain files: changed here and kept: {', '.join(selection.newer_here[:5])}")
    return lines
