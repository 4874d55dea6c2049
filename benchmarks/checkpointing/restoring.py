"""One restore from a cold page cache and one from a warm one, in a fresh process.

The live objects are built and trained for one step from another seed, so that every tensor exists
and differs. Reading a number of each page is part of the time: a file that is only mapped is not
restored yet. Importing, building and digesting are not.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.checkpointing.files import drop_from_cache
from benchmarks.checkpointing.subjects import Subject
from benchmarks.checkpointing.training import Training


def measure(subject: Subject, training: Training, *, last: int, variant: str) -> dict[str, Any]:
    """Seconds, and what the state is after each of them."""
    drop_from_cache(subject.folder)
    cold_s, cold = _restore(subject, training, last, variant)
    training.step()  # else an empty restore would pass for a right one
    warm_s, warm = _restore(subject, training, last, variant)
    return {"cold_s": cold_s, "warm_s": warm_s, "digests": [cold, warm]}


def _restore(subject: Subject, training: Training, last: int, variant: str) -> tuple[float, str]:
    subject.prepare_restore(variant)
    started = time.perf_counter()
    subject.restore(last)
    training.touch()
    spent_s = time.perf_counter() - started
    digest = training.digest()
    subject.end_restore()
    return spent_s, digest
