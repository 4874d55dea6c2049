"""The champion: the checkpoint that is in use, a name in the log that moves and remembers.

Who was champion before is nowhere but in the log's records: a promotion puts a checkpoint on a
stack, and naming the one below it again (a rollback) takes the upper one off.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from onward.errors import Conflict, Missing, UnknownCheckpoint
from onward.repository import History, Repository, record_key
from onward.repository.documents import MAX_RECORD_BYTES
from onward.repository.records import Alias, AnyRecord, new_hex32, now, parse_record

CHAMPION = "champion"

_PARALLEL_READS = 16


def move_champion(repository: Repository, checkpoint: str, *, expected: str | None) -> None:
    """Makes a checkpoint the champion in the place of `expected` (None: of nobody).

    Raises `Conflict` if another one has become champion since: the verdict was not about it.
    `UnknownCheckpoint` if the new one is dropped.
    """
    record_id, writer = new_hex32(), new_hex32()

    def build(history: History) -> AnyRecord:
        if history.aliases.get(CHAMPION) != expected:
            raise Conflict(
                "the champion is another one by now",
                why=f"it was {expected or 'nobody'}, and is {history.aliases.get(CHAMPION)}",
                do="run the command again: it compares with the new one",
            )
        if checkpoint not in history.commits or checkpoint in history.dropped:
            raise UnknownCheckpoint(f"there is no checkpoint {checkpoint!r}")
        return Alias(
            seq=history.seq + 1, record=record_id, writer=writer,
            generation=history.generation, time=now(), prev=history.head_digest,
            name=CHAMPION, checkpoint=checkpoint,
        )  # fmt: skip

    repository.append(build)


def champions(repository: Repository) -> list[str]:
    """The champions that a rollback can go back to, oldest first, and the present one last.

    Reads every record of the log. Dropped checkpoints are among them.
    """

    def target(seq: int) -> Alias | None:
        try:
            data = repository.store.read(record_key(seq), 0, MAX_RECORD_BYTES + 1)
        except Missing:
            return None  # the log of a working copy begins later
        if f'"{CHAMPION}"'.encode() not in data:
            return None
        record = parse_record(data, seq)
        return record if isinstance(record, Alias) and record.name == CHAMPION else None

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        moves = [move for move in pool.map(target, range(repository.history.seq + 1)) if move]
    return stacked([move.checkpoint for move in moves])


def stacked(moves: list[str | None]) -> list[str]:
    """The stack that is left after the name was moved so; None stands for taking it away."""
    stack: list[str] = []
    for checkpoint in moves:
        if checkpoint is None or stack[-1:] == [checkpoint]:
            continue
        if stack[-2:-1] == [checkpoint]:
            stack.pop()
        else:
            stack.append(checkpoint)
    return stack
