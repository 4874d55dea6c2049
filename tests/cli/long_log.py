"""An output with a long log, made without its packs and manifests: for `log` and for opening.

python -m tests.cli.long_log FOLDER 10000
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.records import (
    NO_DIGEST,
    AnyRecord,
    Claim,
    Commit,
    DocumentRef,
    Open,
    new_checkpoint_id,
    new_hex32,
    now,
    record_bytes,
    record_key,
)
from onward.repository.summary import write_summary
from onward.stores import LocalStore


def write_long_log(folder: Path, commits: int) -> None:
    """A log of so many commits, every hundredth from an older parent, and its summary."""
    (folder / "onward/log").mkdir(parents=True)
    history = History()
    writer = new_hex32()
    time = now()

    def common(generation: int) -> dict[str, Any]:
        return {
            "seq": history.seq + 1, "record": new_hex32(), "writer": writer, "time": time,
            "generation": generation, "prev": history.head_digest,
        }  # fmt: skip

    def append(record: AnyRecord) -> None:
        data = record_bytes(record)
        (folder / record_key(record.seq)).write_bytes(data)
        history.apply(record, digest_of(data))

    append(Open(**common(0), repository=new_hex32(), made_by="test"))
    append(Claim(**common(1), who="box pid 1 (train.py)"))
    ids: list[str] = []
    for number in range(commits):
        back = 5 if number % 100 == 99 else 1
        ids.append(new_checkpoint_id())
        append(
            Commit(
                **common(1), checkpoint=ids[-1], step=number * 10, epoch=number // 10, increment=1,
                parent=ids[-1 - back] if len(ids) > back else None, finished=False,
                reason="every 10 steps", manifest=DocumentRef(NO_DIGEST, 1), stored=123_456_789,
                metrics={"loss": 1 / (number + 1), "accuracy": number / commits},
            )
        )  # fmt: skip
    write_summary(LocalStore(folder), history)


if __name__ == "__main__":
    write_long_log(Path(sys.argv[1]), int(sys.argv[2]))
