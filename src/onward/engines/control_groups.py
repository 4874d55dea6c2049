"""Control groups: an attempt's script in groups of its own, where this machine lets us make them.

With them its memory, CPU time and processes have limits as a whole, what the kernel ended for want
of memory is counted, and everything that it ever started is found and ended, whatever it did to
hide. Both versions are used as they are found; where neither can be written, nothing is lost but
this: `Groups.made` says what is there.

Version 1: a group of each controller below this process's own. Version 2: a group with processes
cannot share out its controllers, so groups are made only where the server is in a leaf `server`,
beside which they go (systemd: `DelegateSubgroup=server`), or where a container is all its own. To
move out of any other group would keep systemd from starting the server there again. An attempt has
two leaves, so that the script's limits do not count its agent.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PREFIX = "onward-"
_V1 = ("memory", "cpu", "pids")
_PERIOD_US = 100_000
_INITS = ("tini", "docker-init", "dumb-init", "catatonit")


class Groups:
    """The groups of one attempt. Making them twice, or where others did, changes nothing."""

    def __init__(self, attempt: str, *, proc: Path = Path("/proc")) -> None:
        self._places = _places(proc)
        self._name = _PREFIX + attempt

    def make(self, resources: Mapping[str, Any], *, owner: tuple[int, int] | None = None) -> None:
        """Makes what can be made, with these limits; `owner` (user, group) may join them."""
        for controller, place in self._places.items():
            with contextlib.suppress(OSError):
                script = self._script(controller, place)
                script.mkdir(parents=True, exist_ok=True)
                if controller == "":
                    _share_out(script.parent)
                    (script.parent / "agent").mkdir(exist_ok=True)
                    _write(script.parent / "agent" / "cgroup.procs", "0")
                _limit(script, controller, resources)
                if owner is not None:
                    for group in {script, script.parent} if controller == "" else {script}:
                        os.chown(group / "cgroup.procs", *owner)

    @property
    def made(self) -> list[Path]:
        """The groups that the script joins."""
        found = (self._script(controller, place) for controller, place in self._places.items())
        return [group for group in found if (group / "cgroup.procs").exists()]

    def limits(self, what: str) -> bool:
        """Whether `memory`, `cpu` or `pids` can be limited here."""
        files = {"memory": ("memory.limit_in_bytes", "memory.max"),
                 "cpu": ("cpu.cfs_quota_us", "cpu.max"), "pids": ("pids.max",)}  # fmt: skip
        return any((group / name).exists() for group in self.made for name in files[what])

    def kernel_kills(self) -> int:
        """How many of its processes the kernel ended because memory ran out."""
        kills = 0
        for group in self.made:
            for name in ("memory.oom_control", "memory.events"):
                for line in _read(group / name).splitlines():
                    word, _, count = line.partition(" ")
                    if word == "oom_kill":
                        kills = max(kills, int(count))
        return kills

    def processes(self) -> set[int]:
        """Everything that runs in them."""
        return {int(pid) for group in self.made for pid in _read(group / "cgroup.procs").split()}

    def kill(self) -> None:
        """Ends everything that runs in them, also what is being started at this moment."""
        for group in self.made:
            with contextlib.suppress(OSError):
                _write(group / "cgroup.kill", "1")
            for _ in range(10):
                pids = _read(group / "cgroup.procs").split()
                if not pids:
                    break
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(int(pid), signal.SIGKILL)

    def leave(self) -> None:
        """The agent, who may be in one of them (version 2), goes back to the server's."""
        place = self._places.get("")
        if place is not None:
            with contextlib.suppress(OSError):
                _write(place / "server" / "cgroup.procs", "0")

    def remove(self) -> None:
        """Where nothing runs in them any more."""
        for group in self.made:
            with contextlib.suppress(OSError):
                group.rmdir()
        for controller, place in self._places.items():
            if controller == "":
                for group in (place / self._name / "agent", place / self._name):
                    with contextlib.suppress(OSError):
                        group.rmdir()

    def _script(self, controller: str, place: Path) -> Path:
        return place / self._name / "script" if controller == "" else place / self._name


def make_room(*, proc: Path = Path("/proc")) -> None:
    """Called once by a server: in version 2, shares out controllers to groups beside it."""
    place = _places(proc).get("")
    if place is None or not os.access(place / "cgroup.subtree_control", os.W_OK):
        return
    with contextlib.suppress(OSError):
        if not (place / "server").is_dir():
            (place / "server").mkdir()
            for pid in {str(os.getpid()), "1"}:
                _write(place / "server" / "cgroup.procs", pid)
        _share_out(place)


def _places(proc: Path) -> dict[str, Path]:
    """The groups of this process by controller (version 1), or '' (version 2 with controllers)."""
    own = dict(_own(proc))
    found: dict[str, Path] = {}
    for line in _read(proc / "self" / "mountinfo").splitlines():
        words, _, more = line.partition(" - ")
        root, mount = words.split()[3:5]
        kind, *_, options = [*more.split(), "", ""][:3]
        names = [name for name in _V1 if name in options.split(",")] if kind == "cgroup" else [""]
        if kind not in ("cgroup", "cgroup2"):
            continue
        for name in names:
            if name in own:
                path = Path(mount, os.path.relpath(own[name], root))
                found[name] = path if path.is_dir() else Path(mount)
    if "" in found:
        base = _base(found[""], own[""], proc)
        if base is None or ("memory" in found and "memory" not in _read(
            base / "cgroup.controllers"
        )):  # fmt: skip
            del found[""]  # version 1 has them, or nobody
        else:
            found[""] = base
    return found


def _base(group: Path, own: str, proc: Path) -> Path | None:
    """Beside which groups may be made, in version 2."""
    if group.name == "server":
        return group.parent
    if group.name == "agent" and group.parent.name.startswith(_PREFIX):
        return group.parent.parent
    is_container = os.getpid() == 1 or _read(proc / "1" / "comm").strip() in _INITS
    return group if own == "/" and is_container else None


def _own(proc: Path) -> Iterator[tuple[str, str]]:
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            yield name, path


def _share_out(group: Path) -> None:
    for name in ("memory", "cpu", "pids"):
        with contextlib.suppress(OSError):
            _write(group / "cgroup.subtree_control", f"+{name}")


def _limit(group: Path, controller: str, resources: Mapping[str, Any]) -> None:
    memory, cpus = int(resources.get("memory_bytes", 0)), float(resources.get("cpus", 0))
    processes = int(resources.get("processes", 0))
    wanted: list[tuple[str, str]] = []
    if memory and controller == "memory":
        wanted += [
            ("memory.limit_in_bytes", f"{memory}"),
            ("memory.memsw.limit_in_bytes", f"{memory}"),
        ]
    if memory and controller == "":
        wanted += [("memory.max", f"{memory}"), ("memory.swap.max", "0")]
    if cpus and controller == "cpu":
        wanted += [("cpu.cfs_period_us", f"{_PERIOD_US}"),
                   ("cpu.cfs_quota_us", f"{int(cpus * _PERIOD_US)}")]  # fmt: skip
    if cpus and controller == "":
        wanted.append(("cpu.max", f"{int(cpus * _PERIOD_US)} {_PERIOD_US}"))
    if processes and controller in ("pids", ""):
        wanted.append(("pids.max", f"{processes}"))
    for name, value in wanted:
        if (group / name).exists():
            _write(group / name, value)


def _write(path: Path, text: str) -> None:
    # Not `write_text`: the kernel's files are neither made nor cut.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
