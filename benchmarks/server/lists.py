"""Pages of a list of 10,000 jobs, and the status of one job at 500 requests a second."""

from __future__ import annotations

import time

from benchmarks.server.asking import Connection, at_rate, percentile
from benchmarks.server.served import served

_JOBS = 10_000
_PER_S = 500
_QUERIES = (
    "state=failed", "name=digits+99", "output=here:digits/7", "created_by=person+3",
    "output=here:digits/1*&state=cancelled", "order=oldest",
)  # fmt: skip


async def measure_list(seconds: float, database: str) -> list[tuple[str, str, str]]:
    """Every page of 50 once, then first pages with filters."""
    with served(jobs=_JOBS, database=database) as server:
        line = Connection(server)
        took: list[float] = []
        path, cursor = "/api/v1/jobs?limit=50", ""
        pages = 0
        while True:
            began = time.perf_counter()
            status, body = await line.get(path + cursor)
            took.append(time.perf_counter() - began)
            assert status == 200, body
            pages += 1
            following = body.rpartition(b'"next":')[2].rstrip(b"}")
            if following == b"null":
                break
            cursor = "&cursor=" + following.decode().strip('"')
        assert pages == _JOBS // 50
        filtered: list[float] = []
        for query in _QUERIES:
            for _ in range(30):
                began = time.perf_counter()
                status, body = await line.get(f"{path}&{query}")
                filtered.append(time.perf_counter() - began)
                assert status == 200, body
        line.close()
    return [
        ("list of 10,000 jobs, each page of 50, p95", "≤ 50 ms", _ms(percentile(took, 0.95))),
        ("the same with filters, p95", "≤ 50 ms", _ms(percentile(filtered, 0.95))),
    ]


async def measure_status(seconds: float, database: str) -> list[tuple[str, str, str]]:
    """The requests are due at a steady rate; one that comes late counts as late."""
    with served(jobs=_JOBS, database=database) as server:
        jobs = server.jobs
        await at_rate(
            server, lambda n: f"/api/v1/jobs/{jobs[n % _JOBS]}", per_s=200, seconds=1,
            connections=16,
        )  # fmt: skip
        cpu = server.process.cpu_times()
        took, failed = await at_rate(
            server, lambda n: f"/api/v1/jobs/{jobs[n * 7919 % _JOBS]}", per_s=_PER_S,
            seconds=seconds, connections=16,
        )  # fmt: skip
        after = server.process.cpu_times()
        used = (after.user + after.system - cpu.user - cpu.system) / seconds
    count = len(took)
    return [
        (f"job status, {_PER_S} requests/s for {seconds:.0f} s: errors of {count:,}", "0",
         str(failed)),
        ("the same, p50 / p95 / p99", "–",
         " / ".join(_ms(percentile(took, share)) for share in (0.5, 0.95, 0.99))),
        ("the same, cores of the server", "< 1", f"{used:.2f}"),
    ]  # fmt: skip


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
