"""Threads that read a kind of document for the first time, all at the same moment."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
import msgspec
from onward.repository.documents import convert
sys.setswitchinterval(1e-6)
kinds = []
for number in range(300):
    within = msgspec.defstruct(f"Within{number}", [(f"f{n}", int) for n in range(20)])
    kinds.append(msgspec.defstruct(f"Kind{number}", [(f"f{n}", within) for n in range(5)]))
document = {f"f{n}": {f"f{m}": m for m in range(20)} for n in range(5)}
together = threading.Barrier(8)
def read():
    for kind in kinds:
        together.wait()
        convert(document, kind, name="a document")
threads = [threading.Thread(target=read) for _ in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
"""


def test_threads_that_begin_together_do_not_end_the_process() -> None:
    """msgspec shares what it has looked at halfway; a server that has just started died of it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=False, timeout=120)
    assert done.returncode == 0
