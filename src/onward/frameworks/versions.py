"""Versions of other people's code whose inner workings Onward depends on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onward.errors import UsageError

_Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tested:
    """The versions of a package that were tested: from `oldest` to `newest`, both included.

    `older` and `newer` say why another one is refused.
    """

    package: str
    oldest: _Version
    newest: _Version
    older: str
    newer: str

    def check(self, version: str) -> None:
        """Raises `UsageError` for a version outside of the range."""
        found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if self.oldest <= found <= self.newest:
            return
        older = found < self.oldest
        first, last = (".".join(map(str, bound)) for bound in (self.oldest, self.newest))
        raise UsageError(
            f"{self.package} {version} is outside of the tested range, {first} to {last}",
            why=self.older if older else self.newer,
            do=f"pip install '{self.package}>={first},<{self.newest[0]}.{self.newest[1] + 1}'"
            + ("" if older else ", or a newer Onward"),
        )
