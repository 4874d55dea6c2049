"""Plain files of an output on an object store: moved both ways, complete ones only, never deleted.

Plain files are what a script writes beside `onward/`, such as `torch.save` does. The rules:

- Only whole files are pushed (`wholeness.py`), from a copy that is proven not to have changed
  meanwhile.
- A local file that changed since it was last pushed or fetched wins over the store's and is
  pushed; otherwise the store's wins.
- Deleting a file, here or there, deletes nothing on the other side.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

from onward.errors import StoreError
from onward.jobs.display import Display, Passed, counted, size
from onward.jobs.fetching import Wanted, fetch
from onward.jobs.numbers import RULE, choose_latest
from onward.jobs.open_files import FileId
from onward.jobs.scanning import FileChunks, Token, is_plain, move_aside, scan, token_of
from onward.jobs.selection import Selection
from onward.jobs.synced import Synced, SyncState
from onward.jobs.torn_versions import newest_torn, without
from onward.jobs.wholeness import Wholeness
from onward.repository.fetching import transfer_all
from onward.stores import Entry, LocalStore, Store
from onward.stores.os_errors import written

NONE_TORN: Mapping[str, str] = MappingProxyType({})


class PlainFiles:
    """Keeps the plain files in a working folder and those at the store in step.

    `folder` is the working folder; its `output` is what the script sees as `--train_url`.
    """

    def __init__(
        self,
        remote: Store,
        folder: Path,
        *,
        say: Callable[[str], None],
        passed: Passed = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.remote = remote
        self.local = LocalStore(folder / "output")
        self.pushed_files = 0
        self._folder = folder
        self._say = say
        self._state = SyncState(folder)
        self._wholeness = Wholeness(self.local, self._state, folder / "torn", say=say, clock=clock)
        self._passed = passed
        self._counting = threading.Lock()

    def belong_to(self, repository: str) -> None:
        """Forgets what was in step with another output that was at the same place before."""
        self._state.belong_to(repository)

    def written_in(self, generation: int) -> None:
        """What changes from here on is written under this claim."""
        self._state.generation = generation
        self._state.save()

    def catch_up(self, generation: int, display: Display) -> None:
        """Pushes what an earlier job left behind.

        If another writer has claimed the output since (`generation` is the last claim there), what
        it wrote wins: a file that changed on both sides is moved aside here.
        """
        self.judge(in_order=False)
        if self._state.generation not in (0, generation) and self.unpushed():
            remote = {entry.key: entry.version for entry in self.remote.list("")}
            for key in self.unpushed():
                known = self._state.synced.get(key)
                if key in remote and (known is None or known.version != remote[key]):
                    aside = move_aside(self.local, key, self._folder / "stranded-files")
                    self._state.whole.pop(key)
                    self._say(
                        f"{key} was written by another job meanwhile: ours is kept in {aside}"
                    )
        self.push_rest(display)

    # From the store.

    def select(self, predownload: str, *, torn: Mapping[str, str] = NONE_TORN) -> Selection:
        """What a pull would fetch; touches nothing. What is known to be torn at the store counts
        as if it were not there."""
        if predownload == "no":
            return Selection("none (--predownload no)")
        remote = {e.key: e for e in self.remote.list("") if is_plain(e.key)}
        there = without(remote, torn)
        if predownload == "all":
            selection, keys = Selection("all"), sorted(there)
        else:
            choice = choose_latest(there)
            selection, keys = Selection(RULE, passed_over=choice.passed_over), choice.chosen
        selection.torn |= torn
        for key in keys:
            token = self._token(key)
            known = self._state.synced.get(key)
            if token is None:
                selection.fetched.append(remote[key])
            elif known is None or known.token != token:
                selection.newer_here.append(key)
            elif known.version != remote[key].version:
                selection.fetched.append(remote[key])
            else:
                selection.here.append(key)
        return selection

    def pull(self, selection: Selection, display: Display) -> None:
        """Fetches what was selected, after a look at the space on the disk."""
        if not selection.fetched:
            return

        def arrived(entry: Entry, path: Path) -> None:
            self._state.synced[entry.key] = Synced(token_of(path), entry.version)

        wanted = [Wanted(entry, self.local.path(entry.key)) for entry in selection.fetched]
        try:
            fetch(
                self.remote, wanted, incoming=self._folder / "incoming", title="fetching files",
                display=display, arrived=arrived,
            )  # fmt: skip
        finally:
            self._state.save()

    def pull_whole(self, predownload: str, display: Display) -> Selection:
        """Fetches what `predownload` asks for, says by which rule, and returns what it was.

        What turns out to be torn at the store stays there, and the newest before it is fetched.
        """
        selection = self.select(predownload)
        arrived: dict[str, Entry] = {}
        lines = selection.lines()
        while True:
            for line in lines:
                self._say(line)
            self.pull(selection, display)
            arrived |= {entry.key: entry for entry in selection.fetched}
            torn = newest_torn(self.local, arrived)
            if not torn:
                break
            for name, why in torn.items():
                self._say(f"{name} is torn at the store ({why}): not used")
            for key in arrived.keys() - without(arrived, torn):
                self._remove(key)
                del arrived[key]
            selection = self.select(predownload, torn=selection.torn | torn)
            lines = selection.choices()
        selection.fetched = [arrived[key] for key in sorted(arrived)]
        selection.here = [key for key in selection.here if key not in arrived]
        return selection

    def hide_pushed(self) -> int:
        """Removes from the working copy what is safe at the store; returns how many files that was.

        For a script that shall start from nothing, whether or not it ran on this machine before.
        """
        hidden = 0
        for key, token in scan(self.local)[0].items():
            if self._state.in_step(key, token):
                self._remove(key)
                hidden += 1
        self._state.save()
        return hidden

    # To the store.

    def push_whole(
        self, open_files: Callable[[], set[FileId]], *, allowed: Callable[[], None]
    ) -> None:
        """One scan while the script runs: pushes the files that have become whole.

        `allowed` is called before anything is pushed, and raises if it must not be.
        """
        self._wholeness.look(open_files)
        if self._state.whole:
            allowed()
        for key, token in list(self._state.whole.items()):
            if self._token(key) == token:
                self._push_copy(key, token)
            else:
                self._state.whole.pop(key, None)

    def judge(self, *, in_order: bool) -> None:
        """The script has ended, in good order or not: decides which files are whole."""
        self._wholeness.judge(in_order=in_order)

    def push_rest(self, display: Display) -> None:
        """Pushes every file that is whole. Nothing may be writing any more."""
        waiting = {k: t for k, t in self._state.whole.items() if self._token(k) == t}
        if not waiting:
            return
        total = sum(token.size_bytes for token in waiting.values())
        with display.transfer(f"pushing {counted(len(waiting), 'file')}", total) as passed:
            transfer_all(
                [partial(self._push_now, key, token) for key, token in waiting.items()], passed
            )
        self._state.save()

    def note_versions(self) -> None:
        """Learns what the store calls the versions that were pushed, with one listing."""
        unknown = {k: s for k, s in self._state.synced.items() if not s.version}
        if unknown:
            for entry in self.remote.list(""):
                known = unknown.get(entry.key)
                if known is not None and known.token.size_bytes == entry.size_bytes:
                    self._state.synced[entry.key] = Synced(known.token, entry.version)
            self._state.save()

    def unpushed(self) -> list[str]:
        """Whole files that the store does not have yet."""
        return sorted(k for k, t in self._state.whole.items() if self._token(k) == t)

    # Details.

    def _remove(self, key: str) -> None:
        with written(f"could not remove {key} from the working copy"):
            self.local.path(key).unlink(missing_ok=True)
        self._state.synced.pop(key, None)

    def _push_copy(self, key: str, token: Token) -> None:
        copy = self._folder / "outgoing" / f"{token.inode}-{token.modified_ns}"
        try:
            with written(f"could not copy {key} for pushing"):
                copy.parent.mkdir(exist_ok=True)
                try:
                    shutil.copyfile(self.local.path(key), copy)
                except FileNotFoundError:
                    self._state.whole.pop(key, None)
                    return
            if self._token(key) != token or copy.stat().st_size != token.size_bytes:
                self._state.whole.pop(key, None)  # it is being written again
                return
            self._push(key, token, copy)
        finally:
            with suppress(OSError):
                copy.unlink()
        self._state.save()
        self._say(f"pushed {key} ({size(token.size_bytes)})")

    def _push_now(self, key: str, token: Token, passed: Passed) -> None:
        self._push(key, token, self.local.path(key))
        passed(token.size_bytes)

    def _push(self, key: str, token: Token, source: Path) -> None:
        self.remote.put(key, FileChunks(source), token.size_bytes)
        self._state.synced[key] = Synced(token, "")
        self._state.whole.pop(key, None)
        self._state.held.pop(key, None)
        with self._counting:
            self.pushed_files += 1
            self._passed(token.size_bytes)

    def _token(self, key: str) -> Token | None:
        try:
            return token_of(self.local.path(key))
        except (OSError, StoreError):
            return None
