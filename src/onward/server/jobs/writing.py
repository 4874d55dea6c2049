"""A job as others write it: as TOML, as a command, as curl. Pure."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from onward.jobs.spec import JobSpec

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(document: dict[str, Any]) -> str:
    """Plain JSON values as TOML, which `onward submit job.toml` reads back equal."""
    return "\n".join(_table(document, ())).strip("\n") + "\n"


def as_command(spec: JobSpec) -> str:
    """The `onward run` that does the same on a machine that has the code."""
    command = spec.command().removeprefix("onward run ")
    script, _, rest = command.partition(" ")
    insists = ["--branch", shlex.quote(spec.branch_from)] if spec.branch_from else []
    if spec.verb in ("resume", "continue"):
        insists = [f"--{spec.verb}"]
    if spec.checkpoint:
        insists += ["--predownload", shlex.quote(spec.checkpoint)]
        rest = re.sub(r"--predownload latest ?", "", rest, count=1)
    return " ".join(part for part in ("onward run", script, *insists, rest) if part)


def as_curl(document: dict[str, Any], address: str) -> str:
    """A request to the API; the token is taken from the environment."""
    body = json.dumps(document, ensure_ascii=False)
    lines = [
        f"curl {shlex.quote(address.rstrip('/') + '/api/v1/jobs')}",
        '-H "Authorization: Bearer $ONWARD_TOKEN"',
        '-H "Idempotency-Key: $(uuidgen)"',
        "-H 'Content-Type: application/json'",
        f"--data {shlex.quote(body)}",
    ]
    return " \\\n  ".join(lines)


def _table(table: dict[str, Any], name: tuple[str, ...]) -> list[str]:
    lines, tables = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            tables += _table(value, (*name, key))
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    title = ["", f"[{'.'.join(map(_key, name))}]"] if name and (lines or not tables) else []
    return [*title, *lines, *tables]


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
    return _text(str(value))


def _text(text: str) -> str:
    # JSON's escapes are TOML's too, once everything that is not ASCII stands for itself.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
