"""An audit: a full retrain of what a checkpoint has learned, in an output of its own beside.

It is an ordinary job whose script is told what it audits (`training/environment.py`). Killed at any
moment, the same audit goes on: its output is found again by the name of its folder, and its record
names the retrain, so that it is never written twice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from onward.errors import JobError, UsageError
from onward.jobs.agent import Timing, run_job
from onward.jobs.display import Display
from onward.jobs.outcome import Outcome
from onward.jobs.output import existing_repository
from onward.jobs.spec import JobSpec
from onward.learning.bill import Gap, Told, gaps, make_bill
from onward.learning.rounds import rounds, telling
from onward.repository import (
    Audit,
    Commit,
    History,
    Repository,
    open_or_create,
    open_repository,
    record_audit,
)
from onward.repository.auditing import Retrain, recorded
from onward.stores import LocalStore, open_store, parse
from onward.stores.os_errors import written
from onward.training.places import WorkingFolder, home


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """What is audited, and how its script is run. All but `output` and `script` may stay.

    `checkpoint`: by default the newest finished one. `share`: of its data, above 0 and up to 1.
    `keep`: leave the retrain's own output where it is.
    """

    output: str
    script: str
    checkpoint: str = ""
    data: str = ""
    arguments: tuple[str, ...] = ()
    share: float = 1.0
    keep: bool = False
    pass_as: str = "argument"
    retries: int = 0
    grace_s: float = 30.0
    single_writer: bool = False

    def command(self, checkpoint: str) -> str:
        """The command that goes on with this audit."""
        words = ["onward", "audit", self.output, self.script, "--checkpoint", checkpoint]
        for name, value, default in (
            ("--data", self.data, ""),
            ("--sample", self.share, 1.0),
            ("--pass-as", self.pass_as, "argument"),
            ("--retries", self.retries, 0),
            ("--grace", self.grace_s, 30.0),
        ):
            if value != default:
                words += [name, str(value)]
        words += ["--keep"] * self.keep + ["--single-writer"] * self.single_writer
        if self.arguments:
            words += ["--", *self.arguments]
        return shlex.join(words)


@dataclass(slots=True)
class Audited:
    """How an audit ended. `audit` is None where the job did not come to its end; `outcome` is None
    where an earlier process had trained it to the end."""

    commit: Commit
    folder: Path
    outcome: Outcome | None = None
    audit: Audit | None = None
    gaps: tuple[Gap, ...] = ()
    confirmed: bool = True
    """Whether the script's run said that it trained on what the checkpoint had learned."""
    before: bool = False
    """Whether this very retrain had been recorded already."""

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code if self.outcome is not None else 0


def run_audit(
    spec: AuditSpec,
    display: Display,
    *,
    stdout: IO[Any] | int | None = None,
    timing: Timing | None = None,
) -> Audited:
    """Trains the retrain, or goes on with it, and puts it on record. Call it from the main thread.

    Where the job ends early nothing is recorded: `outcome` says why, and the same call goes on.
    Raises `JobError` while another process audits the same checkpoint, and for a script that ended
    without a finished increment or did not train on the sample; `UsageError`; what stores raise.
    """
    if not 0 < spec.share <= 1:
        raise UsageError(f"a sample of {spec.share!r}", do="give a share above 0 and up to 1")
    store = open_store(spec.output)
    repository = open_repository(store)
    commit = _audited(repository.history, spec.checkpoint)
    with _Folder(audit_folder(spec.output, commit.checkpoint, spec.share)) as folder:
        # Now, not after hours of training: whether this output can be written to at all.
        repository = open_or_create(store, single_writer=spec.single_writer)
        found = Audited(commit, folder.path)
        own = LocalStore(folder.output)
        if _finished(existing_repository(own)) is None:
            found.outcome = _train(spec, commit, folder, display, stdout=stdout, timing=timing)
            if found.exit_code or found.outcome.error is not None:
                return found
        trained = existing_repository(own)
        try:
            retrain = _retrain(spec, commit, trained, found)
        except _OtherData:
            if not spec.keep:
                folder.delete()  # it would never do: the same command is to begin anew
            raise
        repository.refresh()
        found.before = recorded(repository.history, retrain.checkpoint, retrain.retrain) is not None
        found.audit = record_audit(repository, retrain)
        found.gaps = gaps(commit, found.audit)
        if not spec.keep:
            folder.delete()
        return found


def audit_folder(output: str, checkpoint: str, share: float) -> Path:
    """Where the retrain's own output is: beside an output that is a folder, else in our home."""
    location = parse(output)
    name = checkpoint if share == 1 else f"{checkpoint}-{share!r}"
    if location.is_local:
        beside = Path(location.prefix)
        return beside.with_name(f"{beside.name}.audits") / name
    return WorkingFolder.first_path(output, root=home(), kind="audits") / name


def _audited(history: History, name: str) -> Commit:
    if name:
        return history.resolve(name)
    finished = next((commit for commit in history.newest_first() if commit.finished), None)
    if finished is None:
        raise UsageError(
            "there is no finished increment to audit",
            why="a full retrain is compared with what an increment came to",
            do="train one to its end, or name a checkpoint with --checkpoint",
        )
    return finished


def _train(
    spec: AuditSpec,
    commit: Commit,
    folder: _Folder,
    display: Display,
    *,
    stdout: IO[Any] | int | None,
    timing: Timing | None,
) -> Outcome:
    job = JobSpec(
        script=spec.script, output=str(folder.output), data=spec.data, arguments=spec.arguments,
        pass_as=spec.pass_as, retries=spec.retries, grace_s=spec.grace_s, keep_last=1,
        audit_of=f"{parse(spec.output).url}@{commit.checkpoint}", audit_sample=spec.share,
    )  # fmt: skip
    outcome = run_job(job, display, stdout=stdout, timing=timing)
    outcome.command = spec.command(commit.checkpoint)
    return outcome


def _finished(repository: Repository | None) -> Commit | None:
    """The last checkpoint of the retrain's one increment, once it is finished."""
    if repository is None:
        return None
    first = next(iter(rounds(repository.history)), None)
    return first.tip if first is not None and first.finished else None


def _retrain(
    spec: AuditSpec, commit: Commit, trained: Repository | None, found: Audited
) -> Retrain:
    last = _finished(trained)
    if trained is None or last is None:
        raise JobError(
            "the script ended without a finished increment",
            why="it did not come to run.finish(), or does not use onward.open",
            do="make it train to the end of its budget; the same command goes on",
        )
    manifests = {
        c.checkpoint: trained.manifest(c) for c in telling(rounds(trained.history), trained.history)
    }
    about = manifests[last.checkpoint].about
    share = _share(about, commit.checkpoint)
    found.confirmed = share is not None
    if spec.share != (1.0 if share is None else share):
        raise _OtherData(
            f"the script did not train on a sample of {spec.share:g}",
            why="its run does not say so" if share is None else f"it says {share:g}",
            do="let it take its data from run.loader, or leave --sample away",
        )
    told = {id_: Told(manifest.about, manifest.verb) for id_, manifest in manifests.items()}
    used = make_bill(trained.history, told).increments[0].used
    if used.seconds is None:
        raise JobError(
            "the script's checkpoints do not tell how long they trained",
            do="let it train with onward.open",
        )
    return Retrain(
        checkpoint=commit.checkpoint, retrain=last.checkpoint, share=spec.share,
        steps=int(used.steps or 0),
        samples=None if used.samples is None else int(used.samples),
        seconds=used.seconds, stored=int(used.stored or 0), metrics=last.metrics, scores=last.row,
    )  # fmt: skip


def _share(about: Mapping[str, Any], checkpoint: str) -> float | None:
    """On which share of what `checkpoint` learned a run says that it trained, or None."""
    audit = about.get("audit")
    if not isinstance(audit, Mapping) or audit.get("of") != checkpoint:
        return None
    share = audit.get("sample")
    return float(share) if isinstance(share, int | float) and not isinstance(share, bool) else None


class _OtherData(JobError):
    """The retrain is finished, but not on the data that it was to be trained on."""


class _Folder:
    """The place of one audit, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    @property
    def output(self) -> Path:
        """The retrain's own output."""
        return self.path / "output"

    def __enter__(self) -> _Folder:
        with written(f"could not make the folder {self.path}"):
            while self._lock is None:
                self.path.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # deleted by the audit that has just ended
                    self._lock = self._locked()
        for left in self.path.parent.glob(f"{self.path.name}.done-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.output.mkdir(exist_ok=True)
        return self

    def _locked(self) -> IO[bytes] | None:
        lock = (self.path / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise JobError(
                f"this checkpoint is being audited already, in {self.path}",
                why="another process on this output holds that folder",
                do="wait for it, or audit another checkpoint",
            ) from None
        if os.path.samestat(os.fstat(lock.fileno()), (self.path / "lock").stat()):
            return lock
        lock.close()
        return None

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def delete(self) -> None:
        """The whole folder goes. Under another name first, so that nobody takes a half of it."""
        away = self.path.with_name(f"{self.path.name}.done-{secrets.token_hex(4)}")
        with written(f"could not delete {self.path}"):
            self.path.rename(away)
            shutil.rmtree(away, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()  # only if no other audit is there
