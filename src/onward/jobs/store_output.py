"""An output on an object store: a working copy on this machine, pulled, claimed and pushed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from onward.errors import Damaged, Indeterminate, OnwardError, StoreError, UsageError
from onward.jobs.display import Display, Passed, counted, size
from onward.jobs.files import PlainFiles
from onward.jobs.leftover import end_leftover_script
from onward.jobs.open_files import FileId
from onward.jobs.output import Pushed, existing_repository, refuse_start_over
from onward.jobs.selection import Selection
from onward.jobs.spec import JobSpec
from onward.repository import Commit, History, Manifest, Repository, Writer
from onward.repository.fetching import check_space
from onward.repository.keeping import WorkingCopyKeeper
from onward.repository.mirror import Mirror, missing_bytes
from onward.repository.retention import Retention
from onward.repository.working import Lag, LagWatch
from onward.stores import LocalStore, open_store
from onward.training.crown import Crown
from onward.training.opening import Asked, Beginning
from onward.training.places import WorkingFolder
from onward.training.space import LocalSpace, space_limit

_FENCE_EVERY_S = 5.0


class StoreOutput:
    """An output on an object store: a working copy on this machine that is pushed."""

    def __init__(self, spec: JobSpec, display: Display) -> None:
        self._spec = spec
        self._display = display
        self._remote = open_store(spec.output)
        self._generation: int | None = None
        self.pushed = Pushed()
        self.selection: Selection | None = None
        self._counting = threading.Lock()
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
            self._lag_watch = LagWatch(self._mirror.local_store)
            self._files = PlainFiles(
                self._remote, self.folder.parent, say=display.say, passed=self._count
            )
            self._repository = self._mirror.remote
            self._files.belong_to(self._repository.history.repository)
        except BaseException:
            self.working.release()
            raise

        self._keeper: WorkingCopyKeeper | None = None
        self._crown = Crown(lambda: self._mirror.remote, say=display.say)

    def look(self) -> History:
        return self._mirror.local.refresh()

    def catch_up(self) -> Repository:
        stranded = self._mirror.pull_log(on_pushed=self._on_pushed)
        if stranded.folder is not None:
            self._display.say(
                f"{counted(len(stranded.commits), 'checkpoint')} of an earlier job on this machine "
                f"cannot be pushed: {stranded.why}. They are kept in {stranded.folder}"
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
        if self._spec.predownload == "all":
            self._check_all_fits()
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
        self.selection = self._files.pull_whole(self._spec.predownload, self._display)
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
        if self._mirror.push(progress=self._count, on_pushed=self._on_pushed):
            self._collect()
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
            self._collect()
        self._files.push_rest(self._display)
        self._files.note_versions()
        self.pushed.files = self._files.pushed_files
        if in_order:
            self._crown.move()

    def keep(self, retention: Retention) -> None:
        assert self._generation is not None  # a script that tells its rules runs under a claim
        self._keeper = WorkingCopyKeeper(
            self._mirror, retention, claimed_generation=self._generation
        )

    def crown(self, checkpoint: str, expected: str | None) -> None:
        self._crown.decided(checkpoint, expected)

    def _collect(self) -> None:
        """What the rules do not keep goes; that it could not is no reason to stop training."""
        if self._keeper is None:
            return
        try:
            self._keeper.collect()
        except (StoreError, Indeterminate, Damaged) as error:
            self._display.say(f"older checkpoints could not be dropped: {error}")

    def unpushed(self) -> list[str]:
        try:
            commits = self._mirror.unpushed()
        except OnwardError as error:
            return [f"the local log cannot be read: {error.what}"]
        return [f"checkpoint {c.checkpoint} (step {c.step})" for c in commits] + [
            f"file {key}" for key in self._files.unpushed()
        ]

    def lag(self) -> Lag:
        return self._lag_watch.look()

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

    def _check_all_fits(self) -> None:
        limit = space_limit(self._spec.space)
        if limit is None:
            return
        commits = self._intact()
        total = sum(_packs_of(self._mirror.manifests(commits)).values())
        if total > limit:
            raise UsageError(
                f"{counted(len(commits), 'checkpoint')} take {size(total)}",
                why=f"--predownload all, and a limit of {size(limit)} on local space",
                do="use --predownload latest, or raise --space (ONWARD_SPACE)",
            )

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
        packs = _packs_of(manifests)
        limit = space_limit(self._spec.space)
        if limit is not None:
            space = LocalSpace(self._mirror.local_store, limit)
            space.pin(packs)
            space.make_room(missing_bytes(self._mirror.local_store, manifests))
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
        with self._counting:
            self.pushed.size_bytes += count
        if passed is not None:
            passed(count)

    def _on_pushed(self, commit: Commit) -> None:
        self.pushed.commits.append(commit.checkpoint)
        self._display.say(
            f"pushed checkpoint {commit.checkpoint} (step {commit.step}, {size(commit.stored)})"
        )


def _packs_of(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Every pack that they need, with its length."""
    return {pack: ref.size for manifest in manifests for pack, ref in manifest.packs.items()}
