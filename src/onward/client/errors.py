"""What a server, or the way to it, can say no with.

OnwardError
├── ServerUnreachable   it does not answer, or broke off
└── ServerRefused       it answered that it will not; `status` is HTTP's
"""

from __future__ import annotations

from typing import Any

from onward.errors import OnwardError


class ServerUnreachable(OnwardError):
    """The server does not answer, or broke off."""


class ServerRefused(OnwardError):
    """The server answered that it will not. `status` is that of HTTP, `kind` the server's error."""

    def __init__(
        self, what: str, *, status: int, kind: str = "", why: str = "", do: str = ""
    ) -> None:
        super().__init__(what, why=why, do=do)
        self.status = status
        self.kind = kind
        # Who is not known, may not, or asked for what cannot be: the command is wrong, not the run.
        self.exit_code = 2 if status in (401, 403, 404, 413, 422) else 1


def refusal(status: int, document: Any) -> ServerRefused:
    """The error that a problem document tells of; of any other answer, what is known."""
    if not isinstance(document, dict) or not isinstance(document.get("what"), str):
        return ServerRefused(
            f"the server answered {status}",
            status=status,
            why="in a shape that is not Onward's",
            do="check the address: something else may answer there",
        )
    return ServerRefused(
        document["what"], status=status, kind=str(document.get("type", "")).rpartition(":")[2],
        why=str(document.get("why", "")), do=str(document.get("do", "")),
    )  # fmt: skip
