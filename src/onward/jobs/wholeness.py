"""Which plain files are whole, so that they may be pushed.

- A file is *whole* once it looked the same in two scans a second apart while no process of the
  job had it open for writing, or when the script has ended in good order.
- After a crash, what changed and was not found whole is judged by its content: a provably torn
  file is moved aside; one whose format proves it whole is pushed; logs and tables, which grow line
  by line, are pushed; what nobody can judge stays where it is, is not pushed, and is named.
- A folder that is one checkpoint, such as `checkpoint-500/`, is whole or not as one: nothing of it
  is pushed while anything in it is being written, and one torn file moves all of it aside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onward.jobs.open_files import FileId
from onward.jobs.scanning import Token, grows, move_aside, scan
from onward.jobs.synced import SyncState
from onward.jobs.torn import format_is_known, why_torn
from onward.jobs.torn_versions import torn_versions, versions, without
from onward.stores import LocalStore

_SETTLED_S = 1.0
_TEMPORARY = (".tmp", ".temp", ".part", ".partial", "~")


class Wholeness:
    """Marks files in `state` as whole, or as held back. Torn ones are moved to `aside`."""

    def __init__(
        self,
        local: LocalStore,
        state: SyncState,
        aside: Path,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._local = local
        self._state = state
        self._aside = aside
        self._say = say
        self._clock = clock
        self._first_seen: dict[str, tuple[Token, float]] = {}
        self._unfit: set[str] = set()

    def look(self, open_files: Callable[[], set[FileId]]) -> None:
        """One scan while the script runs: what has become whole since the last one."""
        tokens, _ = scan(self._local)
        now_s = self._clock()
        seen: dict[str, tuple[Token, float]] = {}
        settled: dict[str, Token] = {}
        names = versions(tokens)
        moving: set[str] = set()
        for key, token in tokens.items():
            if self._state.in_step(key, token) or self._state.whole.get(key) == token:
                continue
            before = self._first_seen.get(key)
            seen[key] = before if before is not None and before[0] == token else (token, now_s)
            held = self._state.held.get(key) == token
            if now_s - seen[key][1] >= _SETTLED_S and not held and not key.endswith(_TEMPORARY):
                settled[key] = token
            else:
                moving.add(names[key])
        self._first_seen = seen
        being_written = open_files() if settled else set()
        for key, token in settled.items():
            if (token.device, token.inode) in being_written or why_torn(self._local.path(key)):
                moving.add(names[key])
        self._state.whole.update(
            {key: token for key, token in settled.items() if names[key] not in moving}
        )

    def judge(self, *, in_order: bool) -> None:
        """The script has ended, in good order or not: decides which files are whole."""
        tokens, unfit = scan(self._local)
        for key in unfit:
            if key not in self._unfit:
                self._say(f"{key!r} is not pushed: its name cannot be stored")
            self._unfit.add(key)
        changed = {
            key: token
            for key, token in tokens.items()
            if not self._state.in_step(key, token)
            and token not in (self._state.whole.get(key), self._state.held.get(key))
        }
        names = versions(tokens)
        torn = torn_versions(self._local, changed, names)
        if not in_order:
            for name, why in torn.items():
                aside = move_aside(self._local, name, self._aside)
                self._say(f"{name} is torn ({why}): moved to {aside}")
            changed = {key: changed[key] for key in without(changed, torn)}
        reasons: dict[str, None] = {}
        for key, token in sorted(changed.items()):
            name = names[key]
            why = torn.get(name, "")
            if not in_order and (name != key or not self._shows_it_is_whole(key)):
                why = "it was being written when the script ended"
            if why:
                self._state.held[key] = token
                reasons[f"{name} is not pushed: {why}"] = None
            else:
                self._state.whole[key] = token
        for why in reasons:
            self._say(why)
        self._state.save()

    def _shows_it_is_whole(self, key: str) -> bool:
        return format_is_known(self._local.path(key)) or grows(key)
