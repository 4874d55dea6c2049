"""A client that costs little, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks.server.served import LENGTH, Served


class Connection:
    """One that stays open; one request after the other."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._served.port
            )
        assert self._reader is not None
        self._writer.write(f"GET {path} HTTP/1.1\r\n".encode() + self._served.headers + b"\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length is not None, head
        return int(head[9:12]), await self._reader.readexactly(int(length[1]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def at_rate(
    served: Served, path: Callable[[int], str], *, per_s: float, seconds: float, connections: int
) -> tuple[list[float], int]:
    """So many requests a second, whether or not answers come: how long each took from when it was
    due, and how many failed."""
    lines = [Connection(served) for _ in range(connections)]
    total = int(per_s * seconds)
    took: list[float] = []
    failed = 0
    began = time.perf_counter() + 0.1
    number = 0

    async def work(line: Connection) -> None:
        nonlocal number, failed
        while number < total:
            mine, number = number, number + 1
            due = began + mine / per_s
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                status, _ = await line.get(path(mine))
                failed += status != 200
            except (OSError, asyncio.IncompleteReadError):
                failed += 1
            took.append(time.perf_counter() - due)

    await asyncio.gather(*(work(line) for line in lines))
    for line in lines:
        line.close()
    return took, failed


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
