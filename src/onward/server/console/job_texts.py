"""A job as text that somebody can keep: TOML for `onward submit`, and a request for curl."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


def as_toml(spec: Mapping[str, Any]) -> str:
    """The document of a job as TOML. What is None is left out, for TOML has no null."""
    lines: list[str] = []
    _table(lines, spec, ())
    return "\n".join(lines).strip() + "\n"


def as_command(file: str = "job.toml") -> str:
    return f"onward submit {file}"


def as_curl(base: str, file: str = "job.json") -> str:
    """The request that submits it. The token is the user's to fill in."""
    return (
        f"curl --fail-with-body {base}api/v1/jobs \\\n"
        '  --header "Authorization: Bearer $ONWARD_TOKEN" \\\n'
        "  --header 'Content-Type: application/json' \\\n"
        '  --header "Idempotency-Key: $(uuidgen)" \\\n'
        f"  --data @{file}"
    )


def as_json(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, indent=2, ensure_ascii=False)


def _table(lines: list[str], table: Mapping[str, Any], path: tuple[str, ...]) -> None:
    # Values before tables: what follows a table's head belongs to it.
    values = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    if path and (values or not tables):
        lines += ["", "[" + ".".join(map(_key, path)) + "]"]
    lines += [f"{_key(name)} = {_value(value)}" for name, value in values.items()]
    for name, inner in tables.items():
        _table(lines, inner, (*path, name))


def _key(name: str) -> str:
    return name if _BARE.match(name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"no TOML for {type(value).__name__}")


def _string(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
