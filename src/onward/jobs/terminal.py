"""A script's output on its way to a terminal that also shows a bar."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable

_CHUNK_BYTES = 1 << 16
_DRAIN_S = 2.0


class Relay:
    """A pseudo-terminal for the script, whose output `write` gets byte for byte.

    The script still sees a terminal, of the same size: its colours and bars stay as they are.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._agent_end, self.script_end = os.openpty()
        # The real terminal turns line ends into what it needs, and once is enough.
        modes = termios.tcgetattr(self.script_end)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(self.script_end, termios.TCSANOW, modes)
        self._copy_size()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="onward-relay", daemon=True)

    def started(self) -> None:
        """The script has its end; ours is read from now on."""
        os.close(self.script_end)
        self._thread.start()

    def finish(self) -> None:
        """Passes on what is left, once the script has ended."""
        self._stop.set()
        self._thread.join()
        os.close(self._agent_end)

    def _copy(self) -> None:
        end_s = float("inf")
        while time.monotonic() < end_s:
            if self._stop.is_set():
                # A process that left the script's group may hold the other end and go on for ever.
                end_s = min(end_s, time.monotonic() + _DRAIN_S)
            readable, _, _ = select.select([self._agent_end], [], [], 0.2)
            if not readable:
                if self._stop.is_set():
                    return
                self._copy_size()
                continue
            try:
                data = os.read(self._agent_end, _CHUNK_BYTES)
            except OSError:  # how Linux says that nobody holds the other end any more
                return
            if not data:
                return
            self._write(data)

    def _copy_size(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(sys.stderr.fileno())
            fcntl.ioctl(
                self._agent_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0)
            )
