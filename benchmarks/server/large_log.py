"""A log of 1 GiB with a line of 100 MiB: viewed, searched, followed from its end, and cut."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.server.served import Memory, Served, served
from onward.engines.base import LOG
from onward.server.database import open_database
from onward.server.database.tables import Attempt

_SIZE = 1 << 30
_LINE = 100 << 20


async def measure(seconds: float, database: str) -> list[tuple[str, str, str]]:
    with served(jobs=1, database=database) as server:
        job = server.jobs[0]
        url = database or f"sqlite:///{server.folder / 'onward.db'}"
        opened = open_database(url)
        with opened.read() as session:
            attempt = session.query(Attempt).filter_by(job=job).one().id
        opened.close()
        folder = server.attempts / attempt
        folder.mkdir(parents=True)
        _write(folder / LOG)
        path = f"/api/v1/jobs/{job}/log"
        _get(server, f"{path}?limit=100")
        rows = []
        with Memory(server.process) as memory:
            viewed = _timed(lambda: _view(server, path))
            first = _timed(lambda: _search(server, path, "needle-in-the-long-line"))
            none = _timed(lambda: _search(server, path, "this is nowhere"))
            cut = _timed(lambda: _post(server, f"{path}/cut", {"keep_bytes": 1 << 20}))
            left = _get(server, path)
        assert left["cuts"], left
        rows = [
            ("a log of 1 GiB with a line of 100 MiB: growth of the server", "< 64 MB",
             f"{memory.growth / 1e6:.1f} MB"),
            ("beginning, end, three places, the long line: viewed", "–", f"{viewed:.2f} s"),
            ("a hit in the long line: found", "–", f"{first:.2f} s"),
            ("no hit in all of it: known", "–", f"{none:.2f} s"),
            ("cut to the newest MiB", "–", f"{cut * 1000:.0f} ms"),
        ]  # fmt: skip
    return rows


def _write(path: Path) -> None:
    line = b"step %09d loss 0.123456 accuracy 0.987654 on a line as scripts print them\n"
    block = b"".join(line % n for n in range(10_000))
    written = 0
    with path.open("wb") as file:
        while written < _SIZE // 2:
            written += file.write(block)
        long = written
        while written < long + _LINE // 2:
            written += file.write(b"x" * (1 << 20))
        written += file.write(b"needle-in-the-long-line")
        while written < long + _LINE:
            written += file.write(b"y" * (1 << 20))
        written += file.write(b"\n")
        while written < _SIZE:
            written += file.write(block)


def _view(server: Served, path: str) -> None:
    size = _get(server, f"{path}?tail=200")["size"]
    for offset in (0, size // 4, size // 2 + (50 << 20), size - (1 << 20)):
        part = _get(server, f"{path}?offset={offset}&limit=1048576")
        assert part["next"] > offset
    long = _get(server, f"{path}?offset={size // 2 - (1 << 20)}&limit=1048576")
    while not any(line.get("cut", 0) > _LINE // 2 for line in long["lines"]):
        long = _get(server, f"{path}?offset={long['next']}&limit=1048576")
    _get(server, f"{path}?before={size // 2 + _LINE // 2}&limit=65536")


def _search(server: Served, path: str, text: str) -> None:
    place: int | None = 0
    while place is not None:
        found = _get(server, f"{path}/search?q={text.replace(' ', '+')}&from={place}")
        if found["hits"]:
            assert found["hits"][0]["match"] == text
            return
        place = found["next"]


def _get(server: Served, path: str) -> dict:  # type: ignore[type-arg]
    return _ask(Request(f"http://127.0.0.1:{server.port}{path}"), server)


def _post(server: Served, path: str, body: dict[str, int]) -> dict:  # type: ignore[type-arg]
    request = Request(
        f"http://127.0.0.1:{server.port}{path}", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    return _ask(request, server)


def _ask(request: Request, server: Served) -> dict:  # type: ignore[type-arg]
    request.add_header("Authorization", f"Bearer {server.token}")
    with urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def _timed(act: object) -> float:
    assert callable(act)
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
