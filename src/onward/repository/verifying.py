"""Looking for damage: the whole log, every document, lengths or every byte of packs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from onward.errors import Damaged, Missing, NewerFormat
from onward.repository.documents import MAX_COUNT, digest_of
from onward.repository.history import History
from onward.repository.log import Log
from onward.repository.manifest import Manifest, PackRef, Range, manifest_key
from onward.repository.packs import Hasher, pack_key
from onward.repository.reading import read_tensors
from onward.repository.records import Commit, ManifestPlace
from onward.repository.repository import Repository
from onward.repository.summary import read_summary, summary_bytes
from onward.repository.working import read_working, unpushed_commits
from onward.stores.base import Entry, Store

_READ_BYTES = 8 << 20
_NAMED = 5
_RECORD = re.compile(r"onward/log/([0-9]{20})\.json")

Progress = Callable[[int], None]


@dataclass(slots=True)
class Findings:
    """What `verify` saw. `damaged` maps checkpoint ids to reasons; '' is the repository itself.

    `not_here` names checkpoints of a working copy that are pushed and not wholly here: no damage.
    """

    checkpoints: int = 0
    bytes_read: int = 0
    damaged: dict[str, list[str]] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    not_here: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.damaged

    def add(self, checkpoint: str, reason: str) -> None:
        self.damaged.setdefault(checkpoint, []).append(reason)


def verify(
    repository: Repository,
    *,
    commits: Iterable[Commit] | None = None,
    every_byte: bool = False,
    progress: Progress | None = None,
) -> Findings:
    """Checks the log from record 0, each checkpoint's manifest, and its packs.

    Packs are checked by length, or with `every_byte` by every digest there is: each pack is read
    once. A working copy's log, which begins later than record 0, is taken from its summary.
    """
    findings = Findings()
    history = _checked_history(repository.store, findings)
    packs = _Packs(repository.store, findings, every_byte, progress)
    reached: set[str] = set()
    pushed = _pushed(repository.store, history)
    for commit in history.live() if commits is None else commits:
        place = repository.history.manifest_place(commit)
        elsewhere = commit.checkpoint in pushed
        if elsewhere and not _is_stored(repository.store, manifest_key(place.name)):
            findings.checkpoints += 1
            findings.not_here.append(commit.checkpoint)
            continue
        reasons, named = _objections(repository, commit, packs, history, elsewhere=elsewhere)
        if reasons and _changed_meanwhile(repository, commit, place):
            # What is missing may only have been dropped, or moved to where it is looked for now.
            if commit.checkpoint in repository.history.dropped:
                continue
            reasons, named = _objections(repository, commit, packs, history, elsewhere=elsewhere)
        findings.checkpoints += 1
        reached.update(named)
        for reason in reasons:
            findings.add(commit.checkpoint, reason)
        if elsewhere and packs.missing & named:
            findings.not_here.append(commit.checkpoint)
    if commits is None:
        findings.leftovers = leftovers(repository.store, history, reached, findings)
    return findings


def _pushed(store: Store, history: History) -> set[str]:
    """The checkpoints of a working copy that its output holds."""
    working = read_working(store)
    if working is None:
        return set()
    return history.commits.keys() - {c.checkpoint for c in unpushed_commits(history, working)}


def _is_stored(store: Store, key: str) -> bool:
    try:
        store.size(key)
    except Missing:
        return False
    return True


def _objections(
    repository: Repository, commit: Commit, packs: _Packs, history: History, *, elsewhere: bool
) -> tuple[list[str], set[str]]:
    """Why a checkpoint is not intact, and the packs that it names."""
    try:
        manifest = repository.manifest(commit)
    except (Damaged, NewerFormat) as error:
        return [_reason(error)], set()
    return list(packs.objections(manifest, history, elsewhere=elsewhere)), set(manifest.packs)


def _changed_meanwhile(repository: Repository, commit: Commit, place: ManifestPlace) -> bool:
    try:
        repository.refresh()
    except (Damaged, NewerFormat):
        return False  # a finding of its own
    dropped = commit.checkpoint in repository.history.dropped
    return dropped or repository.history.manifest_place(commit) != place


def leftovers(
    store: Store, history: History, reached: set[str], findings: Findings | None = None
) -> list[str]:
    """Keys under `onward/` that no live checkpoint needs: saves cut off before their record.

    Packs and manifests of checkpoints that were dropped are among them until they are deleted.
    Where `findings` tell of damage, what may belong to the damaged is not a leftover.
    """
    damaged = findings.damaged if findings is not None else {}
    log_damaged = "" in damaged
    found: list[str] = []
    manifests = {history.manifest_place(commit).name for commit in history.live()}
    for entry in store.list("onward/"):
        folder, _, name = entry.key.removeprefix("onward/").partition("/")
        stem = name.partition(".")[0]
        if folder == "manifests":
            live = log_damaged or stem in manifests
        elif folder == "packs":
            # With a damaged manifest it is unknown what it reaches: then nothing is a leftover.
            live = bool(damaged) or stem in reached
        elif folder == "log":
            live = _record_number(entry) is not None
        else:
            live = folder in ("summary.json", "working.json", "leftovers.json")
        if not live:
            found.append(entry.key)
    return sorted(found)


def _record_number(entry: Entry) -> int | None:
    found = _RECORD.fullmatch(entry.key)
    return int(found[1]) if found and int(found[1]) <= MAX_COUNT else None


def _reason(error: Damaged | NewerFormat) -> str:
    return error.what + (f": {error.why}" if error.why else "")


def _checked_history(store: Store, findings: Findings) -> History:
    """The history that can be read furthest, by way of the summary if need be."""
    log, shortcut = Log(store), Log(store)
    stored = [n for n in map(_record_number, store.list("onward/log/")) if n is not None]
    begins_later = bool(stored) and 0 not in stored
    if not begins_later:
        _read_to_end(log, findings)
    if findings.intact and max(stored, default=-1) > log.history.seq and not begins_later:
        findings.add("", f"log record {log.history.seq + 1} is missing, but {max(stored)} exists")
    summary = read_summary(store)
    if summary is None:
        if begins_later:
            findings.add("", "log record 0 is missing, and so is a summary to begin from")
        return log.history
    shortcut.history = summary
    if begins_later:
        _read_to_end(shortcut, findings)
        return shortcut.history
    if not findings.intact:
        # What comes after the damage is known as well as it ever will be.
        _read_to_end(shortcut, Findings())
        return max(log.history, shortcut.history, key=lambda history: history.seq)
    _read_to_end(shortcut, findings)
    _read_to_end(log, findings)
    same_place = log.history.seq == shortcut.history.seq
    if same_place and summary_bytes(log.history) != summary_bytes(shortcut.history):
        findings.add("", "summary.json does not match the log; delete it")
    return log.history


def _read_to_end(log: Log, findings: Findings) -> None:
    try:
        log.refresh()
    except (Damaged, NewerFormat) as error:
        findings.add("", _reason(error))


class _Packs:
    """The packs of an output, each read when a manifest first names it."""

    def __init__(
        self, store: Store, findings: Findings, every_byte: bool, progress: Progress | None
    ) -> None:
        self._store = store
        self._findings = findings
        self._every_byte = every_byte
        self._progress = progress
        self._objections: dict[tuple[str, PackRef], str] = {}
        self._intact: dict[Range, bool] = {}
        self.missing: set[str] = set()

    def objections(self, manifest: Manifest, history: History, *, elsewhere: bool) -> Iterator[str]:
        """Everything that is wrong with the packs of one checkpoint.

        If it is `elsewhere` too, packs that are missing here are not among that.
        """
        for pack, ref in manifest.packs.items():
            if pack in history.condemned:
                yield f"pack {pack} was condemned by a drop, and anybody may delete it"
            if (pack, ref) not in self._objections:
                ranges = {r for t in manifest.tensors for r in t.ranges() if r.pack == pack}
                self._objections[pack, ref] = self._objection(pack, ref, ranges)
            reason = self._objections[pack, ref]
            if reason and not (elsewhere and pack in self.missing):
                paths = [
                    t.path for t in manifest.tensors if any(r.pack == pack for r in t.ranges())
                ]
                more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
                yield f"{reason} (it holds {', '.join(paths[:_NAMED])}{more})"
        if self._every_byte:
            for tensor in manifest.tensors:
                if elsewhere and any(found.pack in self.missing for found in tensor.ranges()):
                    continue
                if not all(map(self._is_intact, tensor.ranges())):
                    yield f"tensor {tensor.path} is damaged"
                elif len(tensor.parts) > 1:
                    try:
                        read_tensors(self._store, {0: tensor})
                    except Damaged as error:
                        yield _reason(error)

    def _objection(self, pack: str, ref: PackRef, ranges: set[Range]) -> str:
        try:
            size = self._store.size(pack_key(pack))
        except Missing:
            self.missing.add(pack)
            return f"pack {pack} is missing"
        changed = self._every_byte and self._read_through(pack, ref, size, ranges) != ref.digest
        if size != ref.size:
            return f"pack {pack} has {size:,} of {ref.size:,} bytes"
        return f"pack {pack} has changed bytes" if changed else ""

    def _read_through(self, pack: str, ref: PackRef, size: int, ranges: set[Range]) -> str:
        """The digest of the whole pack, and on the way those of ranges of it."""
        whole, part = Hasher(ref), blake3()
        waiting = sorted(ranges, key=lambda found: (found.offset, found.size), reverse=True)
        for start in range(0, size, _READ_BYTES):
            data = self._store.read(pack_key(pack), start, min(_READ_BYTES, size - start))
            piece = memoryview(data)
            whole.update(piece)
            while waiting and waiting[-1].offset < start + len(piece):
                found = waiting[-1]
                end = found.offset + found.size
                part.update(piece[max(0, found.offset - start) : end - start])
                if end > start + len(piece):
                    break
                self._intact[waiting.pop()] = part.hexdigest() == found.digest
                part = blake3()
            self._findings.bytes_read += len(piece)
            if self._progress is not None:
                self._progress(len(piece))
        return whole.hexdigest()

    def _is_intact(self, found: Range) -> bool:
        """Whether a range holds what it should; read by itself if the pack was read without it."""
        if found not in self._intact:
            try:
                data = self._store.read(pack_key(found.pack), found.offset, found.size)
            except Missing:
                data = b""
            right = len(data) == found.size and digest_of(data) == found.digest
            self._intact[found] = right
        return self._intact[found]
