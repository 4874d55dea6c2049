"""Where an output's bytes are while training: the folder itself, or a working copy."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import platformdirs
from blake3 import blake3

from onward.errors import Damaged, Indeterminate, OnwardError, StoreError, UsageError
from onward.repository import Writer
from onward.repository.mirror import Mirror, missing_bytes
from onward.repository.working import Lag, LagWatch
from onward.stores import LocalStore, open_store, parse
from onward.stores.os_errors import written
from onward.training.lag import LagNotices, waiting_text
from onward.training.space import LocalSpace

_PUSH_EVERY_S = 0.5
_LOOK_EVERY_S = 1.0
_QUIET_S = 1.0
_COPIES = 16


def home() -> Path:
    """Where working copies live: `ONWARD_HOME`, or the user's cache folder."""
    chosen = os.environ.get("ONWARD_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("onward"))


class WorkingFolder:
    """A folder on this machine for one remote location, held by one process at a time.

    If another process holds the first one, the next number is taken: both then go on, and the
    claims at the remote output decide who may commit.
    """

    def __init__(self, url: str, *, root: Path | None = None, kind: str = "outputs") -> None:
        first = self.first_path(url, root=root, kind=kind)
        for number in range(1, _COPIES + 1):
            self.path = first if number == 1 else first.with_name(f"{first.name}-{number}")
            with written(f"could not make the folder {self.path}"):
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock: IO[bytes] = (self.path / "lock").open("ab")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                continue
            return
        raise UsageError(
            f"{_COPIES} processes on this machine already hold working copies of {url}",
            do="stop some of them, or set ONWARD_HOME to another folder",
        )

    @staticmethod
    def first_path(url: str, *, root: Path | None = None, kind: str = "outputs") -> Path:
        """Where the folder for `url` is, whether or not it has been made."""
        location = parse(url)
        digest = blake3(location.url.encode()).hexdigest(length=8)
        last = location.prefix.rpartition("/")[2] or location.bucket
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in last)[:40]
        return (root or home()) / kind / f"{name}-{digest}"

    @property
    def output(self) -> Path:
        """The local counterpart of the output: what a script sees as `--train_url`."""
        folder = self.path / "output"
        folder.mkdir(exist_ok=True)
        return folder

    def release(self) -> None:
        self._lock.close()


def working_copies(url: str, *, root: Path | None = None) -> list[Path]:
    """The local counterparts of an output that exist on this machine. Makes none."""
    first = WorkingFolder.first_path(url, root=root)
    numbered = [first.with_name(f"{first.name}-{number}") for number in range(2, _COPIES + 1)]
    return [path / "output" for path in [first, *numbered] if (path / "output").is_dir()]


class Pusher:
    """Pushes local commits from a thread of the training process, in order, as they come.

    A store that is slow or away only makes it lag: nobody who saves waits for it.
    """

    def __init__(self, mirror: Mirror, folder: WorkingFolder, say: Callable[[str], None]) -> None:
        self.mirror = mirror
        self._folder = folder  # held as long as commits may be pushed from it
        self._say = say
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._watch = LagWatch(mirror.local_store)
        self.after_push: Callable[[], object] = lambda: None
        """Called in the pushing thread after checkpoints were pushed."""
        self.failure: OnwardError | None = None
        self._thread = threading.Thread(target=self._work, name="onward-push", daemon=True)
        self._lag_thread = threading.Thread(target=self._tell, name="onward-lag", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._lag_thread.start()

    def lag(self) -> Lag:
        """What is not pushed yet. Cheap; for one thread at a time."""
        return self._watch.look()

    def has_failed(self) -> bool:
        """Whether nothing will be pushed any more."""
        return self.failure is not None

    def finish(self) -> None:
        """Waits for the last push. Raises what kept a commit from being pushed."""
        self._stop.set()
        self._thread.join(_QUIET_S)
        if self._thread.is_alive():
            lag = LagWatch(self.mirror.local_store).look()
            if lag.checkpoints:
                self._say(waiting_text(lag))
        self._thread.join()
        self._lag_thread.join()
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            warned = False
            while not self._stop.wait(_PUSH_EVERY_S):
                try:
                    self._push()
                    warned = False
                except (StoreError, Indeterminate) as error:
                    if not warned:
                        self._say(f"pushing is delayed, training goes on: {error.what}")
                    warned = True
            self._push()
        except OnwardError as error:
            self.failure = error
        finally:
            self._ended.set()

    def _push(self) -> None:
        if self.mirror.push():
            self.after_push()

    def _tell(self) -> None:
        """Beside the pushing thread, which may be waiting for the store."""
        watch, notices = LagWatch(self.mirror.local_store), LagNotices()
        while not self._ended.wait(_LOOK_EVERY_S):
            notice = notices.about(watch.look())
            if notice:
                self._say(notice)


def claim_working_copy(
    url: str,
    who: str,
    *,
    single_writer: bool,
    checkpoint: str,
    fall_back: bool,
    say: Callable[[str], None],
    limit_bytes: int | None = None,
) -> tuple[WorkingFolder, Mirror, Writer]:
    """Pulls an output's log and the checkpoint to go on from, and claims the output.

    With a limit on local space, what is pushed and not needed makes room first; else `SpaceLimit`.
    """
    folder = WorkingFolder(url)
    mirror = Mirror(LocalStore(folder.output), open_store(url), single_writer=single_writer)
    stranded = mirror.pull_log()
    if stranded.folder is not None:
        say(
            f"{len(stranded.commits)} checkpoints of an earlier run here cannot be pushed: "
            f"{stranded.why}; they are kept in {stranded.folder}"
        )
    history = mirror.remote.history
    for commit in [history.resolve(checkpoint)] if checkpoint else history.newest_first():
        try:
            if limit_bytes is not None:
                manifest = mirror.remote.manifest(commit)
                space = LocalSpace(mirror.local_store, limit_bytes)
                space.pin(manifest.packs)
                space.make_room(missing_bytes(mirror.local_store, [manifest]))
            mirror.pull_checkpoint(commit)
            break
        except Damaged:
            if not fall_back:
                raise
    return folder, mirror, mirror.claim(who)
