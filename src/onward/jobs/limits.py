"""What a script may use of its machine, beside what a control group holds it to."""

from __future__ import annotations

import resource
from dataclasses import dataclass

_NUMBERS = {
    "data_bytes": resource.RLIMIT_DATA,
    "cpu_seconds": resource.RLIMIT_CPU,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_bytes": resource.RLIMIT_FSIZE,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that the kernel keeps for each process (`setrlimit`); 0 is none.

    `data_bytes` is private memory that can be written, which is what programs allocate; the address
    space would be the wrong thing to limit, as frameworks reserve much more than they use.
    `processes` counts all those of the user, so it only makes sense for a user of the job's own.
    """

    data_bytes: int = 0
    cpu_seconds: int = 0
    open_files: int = 0
    processes: int = 0
    file_bytes: int = 0
    groups: tuple[str, ...] = ()
    """Files `cgroup.procs` of control groups that the script joins before it starts."""

    def text(self) -> str:
        """For the launcher in `process.py`: `NUMBER=MOST,…`."""
        found = {number: getattr(self, name) for name, number in _NUMBERS.items()}
        return ",".join(f"{number}={most}" for number, most in found.items() if most)
