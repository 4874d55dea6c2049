"""The version that the state of every hook carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onward.errors import NewerFormat


def accepted(state: Mapping[str, Any], name: str, *, version: int) -> Mapping[str, Any]:
    """The state itself. Raises `NewerFormat` if it was written by a newer Onward."""
    if state["version"] > version:
        raise NewerFormat(
            f"the state of {name} has version {state['version']}",
            why=f"this Onward knows versions up to {version}",
            do="update Onward",
        )
    return state
