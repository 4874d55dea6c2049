"""Looking for damage: the whole log, every document, lengths or every byte of packs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from blake3 import blake3

from onward.errors import Damaged, Missing, NewerFormat
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.manifest import Manifest, PackRef
from onward.repository.packs import pack_key
from onward.repository.records import Commit, parse_record, record_key
from onward.repository.repository import Repository
from onward.repository.summary import read_summary, summary_bytes
from onward.stores.base import Store

_READ_BYTES = 8 << 20


@dataclass(slots=True)
class Findings:
    """What `verify` saw. `damaged` maps checkpoint ids to reasons; '' is the repository itself."""

    checkpoints: int = 0
    bytes_read: int = 0
    damaged: dict[str, list[str]] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)

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
    progress: Callable[[int], None] | None = None,
) -> Findings:
    """Checks the log from record 0, each checkpoint's manifest, and its packs.

    Packs are checked by length, or with `every_byte` by digest, each pack once.
    """
    findings = Findings()
    history = _fold_from_zero(repository.store, findings)
    summary = read_summary(repository.store)
    if summary is not None and summary.seq <= history.seq:
        again = _fold_from_zero(repository.store, Findings(), up_to=summary.seq)
        if summary_bytes(again) != summary_bytes(summary):
            findings.add("", "summary.json does not match the log; delete it")
    packs: dict[str, str] = {}
    chosen = list(history.live() if commits is None else commits)
    reached: set[str] = set()
    for commit in chosen:
        findings.checkpoints += 1
        try:
            manifest = repository.manifest(commit)
        except (Damaged, NewerFormat) as error:
            findings.add(commit.checkpoint, f"{error.what}: {error.why}".rstrip(": "))
            continue
        reached.update(manifest.packs)
        _check_packs(repository.store, manifest, packs, findings, every_byte, progress)
    if commits is None:
        findings.leftovers = leftovers(repository.store, history, reached, findings)
    return findings


def leftovers(
    store: Store, history: History, reached: set[str], findings: Findings | None = None
) -> list[str]:
    """Keys under `onward/` that no live checkpoint needs: saves cut off before their record.

    Packs and manifests of checkpoints that were dropped are among them until they are deleted.
    """
    found: list[str] = []
    for entry in store.list("onward/"):
        folder, _, name = entry.key.removeprefix("onward/").partition("/")
        stem = name.partition(".")[0]
        if folder == "manifests":
            live = stem in history.commits and stem not in history.dropped
        elif folder == "packs":
            # With a damaged manifest it is unknown what it reaches: then nothing is a leftover.
            live = stem in reached or (findings is not None and not findings.intact)
        elif folder == "log":
            live = stem.isdigit() and int(stem) <= history.seq
        else:
            live = folder in ("summary.json", "working.json")
        if not live:
            found.append(entry.key)
    return sorted(found)


def _fold_from_zero(store: Store, findings: Findings, *, up_to: int | None = None) -> History:
    history = History()
    while up_to is None or history.seq < up_to:
        seq = history.seq + 1
        try:
            data = store.read(record_key(seq))
        except Missing:
            break
        try:
            history.apply(parse_record(data, seq), digest_of(data))
        except (Damaged, NewerFormat) as error:
            findings.add("", f"{error.what}: {error.why}".rstrip(": "))
            break
    return history


def _check_packs(
    store: Store,
    manifest: Manifest,
    seen: dict[str, str],
    findings: Findings,
    every_byte: bool,
    progress: Callable[[int], None] | None,
) -> None:
    for pack, ref in manifest.packs.items():
        if pack not in seen:
            seen[pack] = _pack_objection(store, pack, ref, findings, every_byte, progress)
        if seen[pack]:
            names = [t.path for t in manifest.tensors if any(r.pack == pack for r in t.ranges())]
            listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            findings.add(manifest.checkpoint, f"{seen[pack]} (it holds {listed})")
            if every_byte:
                _name_tensors(store, manifest, pack, findings)


def _pack_objection(
    store: Store,
    pack: str,
    ref: PackRef,
    findings: Findings,
    every_byte: bool,
    progress: Callable[[int], None] | None,
) -> str:
    key = pack_key(pack)
    try:
        size = store.size(key)
    except Missing:
        return f"pack {pack} is missing"
    if size != ref.size:
        return f"pack {pack} has {size:,} of {ref.size:,} bytes"
    if not every_byte:
        return ""
    hasher = blake3()
    for start in range(0, size, _READ_BYTES):
        piece = store.read(key, start, min(_READ_BYTES, size - start))
        hasher.update(piece)
        findings.bytes_read += len(piece)
        if progress is not None:
            progress(len(piece))
    return "" if hasher.hexdigest() == ref.digest else f"pack {pack} has changed bytes"


def _name_tensors(store: Store, manifest: Manifest, pack: str, findings: Findings) -> None:
    for tensor in manifest.tensors:
        for found in tensor.ranges():
            if found.pack != pack:
                continue
            try:
                data = store.read(pack_key(pack), found.offset, found.size)
            except Missing:
                return
            if digest_of(data) != found.digest:
                findings.add(manifest.checkpoint, f"tensor {tensor.path} is damaged")
                break
