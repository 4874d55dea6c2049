"""Every error that Onward raises on purpose.

OnwardError                    what happened, why, and what to do next
├── UsageError                 the call or the command asks for something impossible
│   ├── BadURL                 an output or data location that cannot be understood
│   ├── WrongVerb              resume, continue or branch where another one is right
│   ├── UnknownCheckpoint      no checkpoint goes by this name
│   └── EmptyBudget            an increment that would train nothing
├── StoreError                 bytes could not be stored or read
│   ├── Missing                nothing is stored under this key
│   ├── AlreadyExists          something is stored under this key already
│   ├── Unreachable            the store does not answer
│   ├── ReadOnly               the store refuses writes
│   ├── NoSpace                the store is full
│   │   └── SpaceLimit         the limit on local space would be passed; try again after pushes
│   └── UnsafeStore            the store does not honour create-if-absent
├── RepositoryError            the log, a manifest or a pack
│   ├── NotAnOutput            there is no repository at this place
│   ├── Fenced                 another writer took over; this one must stop for good
│   ├── Conflict               a foreign record was found in a slot believed to be ours
│   ├── Indeterminate          the store never said whether a record was stored
│   ├── Damaged                stored bytes are not what was written
│   ├── Dropped                a checkpoint was dropped while it was read
│   └── NewerFormat            written by a newer Onward
├── StateError                 live objects and stored state do not fit
│   ├── Unstorable             an object that cannot be stored, named by its path
│   ├── Unsettled              a tensor changed while it was being copied
│   ├── Diverged               weights or outputs are no finite numbers any more
│   └── Mismatch               names, shapes or dtypes differ; all of them at once
├── DataError                  what the model learns from
│   ├── DataChanged            data of an unfinished increment is not what it was
│   ├── UnknownLabel           a label or id that the model has no row for
│   ├── Leak                   items of a frozen holdout are in the training data
│   └── NothingNew             a finished model and no new data (exits with 0)
├── GateRefused                a candidate may not become the champion
│   ├── Regression             it lost what the champion knows (exits with 3)
│   └── Unproven               the evidence does not show that it lost nothing
└── JobError                   one attempt at a job could not be carried through
    └── TransferFailed         files could not be fetched or pushed

Stopped                        saved and stopped on request; exits with 75 (or 130 for Ctrl-C)
"""

from __future__ import annotations

from collections.abc import Sequence


class OnwardError(Exception):
    """Says what happened, why, and what to do next.

    `exit_code` is the status of a command or script that ends with this error.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        self.what = what
        self.why = why
        self.do = do
        super().__init__(what)

    def sentence(self) -> str:
        """What happened and why, in one line for a table or a timeline."""
        return f"{self.what}: {self.why}" if self.why else self.what

    def __str__(self) -> str:
        text = self.sentence()
        if self.do:
            text += f"\n  what to do: {self.do}"
        return text


class UsageError(OnwardError):
    """The call or the command asks for something impossible."""

    exit_code = 2


class BadURL(UsageError):
    """An output or data location that cannot be understood."""


class WrongVerb(UsageError):
    """Resume, continue or branch was demanded where another verb is right."""


class UnknownCheckpoint(UsageError):
    """No checkpoint goes by this name."""


class EmptyBudget(UsageError):
    """An increment that would train zero steps, or at a learning rate of zero."""


class StoreError(OnwardError):
    """Bytes could not be stored or read."""


class Missing(StoreError):
    """Nothing is stored under this key."""


class AlreadyExists(StoreError):
    """Something is stored under this key already."""


class Unreachable(StoreError):
    """The store does not answer, or broke off."""


class ReadOnly(StoreError):
    """The store refuses writes."""


class NoSpace(StoreError):
    """The store is full."""


class SpaceLimit(NoSpace):
    """The limit on local space would be passed, and what is here is nowhere else yet, or needed.

    `for_good` says that no push will help: the limit is too small for what is to be saved.
    """

    def __init__(self, what: str, *, for_good: bool, why: str = "", do: str = "") -> None:
        super().__init__(what, why=why, do=do)
        self.for_good = for_good


class UnsafeStore(StoreError):
    """The store does not honour create-if-absent."""


class RepositoryError(OnwardError):
    """The log, a manifest or a pack."""


class NotAnOutput(RepositoryError):
    """There is no repository at this place."""

    exit_code = 2


class Fenced(RepositoryError):
    """Another writer took over this output; this one must stop for good."""


class Conflict(RepositoryError):
    """A foreign record stands in a slot that a single writer believed to be its own."""


class Indeterminate(RepositoryError):
    """The store never said whether a record was stored; it may or may not be."""


class Damaged(RepositoryError):
    """Stored bytes are not what was written."""


class Dropped(RepositoryError):
    """A checkpoint was dropped while it was read; what it needed is gone."""


class NewerFormat(RepositoryError):
    """Written by a newer Onward than this one."""


class StateError(OnwardError):
    """Live objects and stored state do not fit."""


class Unstorable(StateError):
    """An object in the state that cannot be stored, named by its path."""


class Unsettled(StateError):
    """A tensor changed outside of an optimizer's step while it was being copied."""


class Diverged(StateError):
    """Weights or outputs are no finite numbers any more: nothing can be learned from them."""


class Mismatch(StateError):
    """The live objects do not fit the checkpoint; `differences` lists every one."""

    def __init__(
        self, what: str, *, differences: Sequence[str], why: str = "", do: str = ""
    ) -> None:
        super().__init__(what, why=why, do=do)
        self.differences = list(differences)

    def __str__(self) -> str:
        listed = "".join(f"\n  - {difference}" for difference in self.differences)
        text = self.what + (f": {self.why}" if self.why else "") + listed
        return text + (f"\n  what to do: {self.do}" if self.do else "")


class DataError(OnwardError):
    """What the model learns from."""


class DataChanged(DataError):
    """The data of an unfinished increment is not what it was."""


class UnknownLabel(DataError):
    """Labels or ids that the model has no row for; `labels` lists each number once."""

    def __init__(
        self, what: str, *, labels: Sequence[int] = (), why: str = "", do: str = ""
    ) -> None:
        super().__init__(what, why=why, do=do)
        self.labels = list(labels)


class Leak(DataError):
    """Items of a frozen holdout are in the training data; `count` says how many."""

    def __init__(self, what: str, *, count: int, why: str = "", do: str = "") -> None:
        super().__init__(what, why=why, do=do)
        self.count = count


class NothingNew(DataError, SystemExit):
    """The model has learned all of this data: nothing to do.

    Also a `SystemExit`, so that a script which does not catch it ends quietly with status 0.
    """

    exit_code = 0

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(what, why=why, do=do)
        self.code = 0


class GateRefused(OnwardError):
    """A candidate may not become the champion."""


class Regression(GateRefused):
    """The candidate lost some of what the champion knows, by more than the margin."""

    exit_code = 3


class Unproven(GateRefused):
    """The evidence does not suffice to say that the candidate lost nothing."""


class JobError(OnwardError):
    """One attempt at a job could not be carried through."""


class TransferFailed(JobError):
    """Files could not be fetched or pushed."""


class Stopped(SystemExit):
    """The state is saved and training stops because it was asked to.

    A script that does not catch it ends with status 75 (SIGTERM: run the same command again to
    go on) or 130 (Ctrl-C).
    """

    def __init__(self, reason: str, *, code: int = 75) -> None:
        super().__init__(code)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
