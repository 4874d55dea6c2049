"""A real job prints 1,000 lines a second; 100 connections follow its log, and 20 more stall."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
import time
from urllib.request import Request, urlopen

from benchmarks.server.asking import percentile
from benchmarks.server.served import Memory, Served, served

_FOLLOWERS, _STALLED, _PER_S = 100, 20, 1000
_TIME = re.compile(rb"printed at (\d+\.\d+)")
_SCRIPT = b"""
import sys, time
seconds, per_s = float(sys.argv[-2]), int(sys.argv[-1])
began, number = time.time(), 0
while number < seconds * per_s:
    while number < (time.time() - began) * per_s:
        number += 1
        print(f"line {number} of a talkative script, printed at {time.time():.6f}", flush=True)
    time.sleep(0.005)
"""


async def measure(seconds: float, database: str) -> list[tuple[str, str, str]]:
    with served(database=database) as server:
        job = _submit(server, seconds)
        path = f"/api/v1/jobs/{job}/log/follow"
        with Memory(server.process) as memory:
            stalled = [await _open(server, path, limit=4096) for _ in range(_STALLED)]
            found = await asyncio.gather(*(_follow(server, path) for _ in range(_FOLLOWERS)))
        for _, writer in stalled:
            writer.close()
        lags = [lag for _, each in found for lag in each]
        lines = {count for count, _ in found}
    assert min(lines) >= seconds * _PER_S, f"lines were lost: {sorted(lines)[:3]}"
    shown = (percentile(lags, 0.5), percentile(lags, 0.99), max(lags))
    what = (
        f"{_FOLLOWERS} followers at {_PER_S:,} lines/s for {seconds:.0f} s, {_STALLED} that stall: "
        "from print to arrival, p50 / p99 / worst"
    )
    return [
        (what, "≤ 1 s", " / ".join(f"{lag:.2f} s" for lag in shown)),
        ("the same: lines missed", "0", "0"),
        ("the same: growth of the server", "bounded", f"{memory.growth / 1e6:.1f} MB"),
    ]


async def _follow(server: Served, path: str) -> tuple[int, list[float]]:
    """How many lines came, and how old the newest of each event was."""
    reader, writer = await _open(server, path, limit=8 << 20)
    count, lags = 0, []
    while True:
        event = await reader.readuntil(b"\n\n")
        if b"event: end" in event:
            break
        count += event.count(b'{"at":') - event.count(b'"open":true')
        times = _TIME.findall(event)
        if times:
            # The oldest of an event waited longest.
            lags.append(time.time() - float(times[0]))
    writer.close()
    return count, lags


async def _open(
    server: Served, path: str, *, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=limit)
    writer.write(f"GET {path} HTTP/1.1\r\n".encode() + server.headers + b"\r\n")
    return reader, writer


def _submit(server: Served, seconds: float) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("prints.py")
        member.size = len(_SCRIPT)
        tar.addfile(member, io.BytesIO(_SCRIPT))
    digest = _post(server, "/api/v1/code?name=bench", packed.getvalue())["digest"]
    spec = {
        "name": "prints", "command": ["prints.py", str(seconds), str(_PER_S)],
        "code": {"digest": digest}, "output": {"location": "here:out"},
    }  # fmt: skip
    return str(_post(server, "/api/v1/jobs", json.dumps(spec).encode())["id"])


def _post(server: Served, path: str, body: bytes) -> dict[str, object]:
    kind = "application/json" if path.endswith("jobs") else "application/octet-stream"
    request = Request(
        f"http://127.0.0.1:{server.port}{path}", body,
        {"Authorization": f"Bearer {server.token}", "Content-Type": kind},
    )  # fmt: skip
    with urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found
