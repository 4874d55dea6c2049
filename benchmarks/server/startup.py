"""From the command to the first page: an empty folder, whose tables are made as well."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import tempfile
import time

_TIMES = 5
_PORT = 8431


async def measure(seconds: float, database: str) -> list[tuple[str, str, str]]:
    """The median of five starts. `seconds` is not used; each start needs a database of its own, so
    that only SQLite is measured."""
    del seconds, database
    found = [_start() for _ in range(_TIMES)]
    what = f"`onward serve` in an empty folder to its first page, median of {_TIMES}"
    return [(what, "≤ 2 s", f"{statistics.median(found):.2f} s")]


def _start() -> float:
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        command = [sys.executable, "-m", "onward.cli", "serve", "--folder", folder]
        with subprocess.Popen(
            [*command, "--port", str(_PORT)], stderr=subprocess.DEVNULL
        ) as process:
            while not _page():
                time.sleep(0.01)
            took_s = time.perf_counter() - began_s
            process.terminate()
        return took_s


def _page() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", _PORT)
    try:
        connection.request("GET", "/", headers={"accept": "text/html"})
        return b"<html" in connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
