"""What is in step with the store: remembered in the working folder, outside of the output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.errors import Missing
from onward.jobs.scanning import Token
from onward.stores import LocalStore

_KEY = "files.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Synced:
    """A file as it was when both sides had the same bytes. `version` is '' until it was listed."""

    token: Token
    version: str


class SyncState:
    """`synced`: equal on both sides. `whole`: to be pushed. `held`: must not be pushed as it is."""

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(folder)
        self.repository = ""
        self.generation = 0
        self.synced: dict[str, Synced] = {}
        self.whole: dict[str, Token] = {}
        self.held: dict[str, Token] = {}
        self._load()

    def belong_to(self, repository: str) -> None:
        """Forgets everything if it was about another repository."""
        if self.repository != repository:
            if self.repository:
                self.synced.clear()
                self.whole.clear()
                self.held.clear()
            self.repository = repository
            self.save()

    def in_step(self, key: str, token: Token) -> bool:
        """Whether the store has the file as it is here."""
        known = self.synced.get(key)
        return known is not None and known.token == token

    def save(self) -> None:
        document = {
            "format": _FORMAT,
            "repository": self.repository,
            "generation": self.generation,
            "synced": {k: [*s.token, s.version] for k, s in sorted(self.synced.items())},
            "whole": {k: list(t) for k, t in sorted(self.whole.items())},
            "held": {k: list(t) for k, t in sorted(self.held.items())},
        }
        data = json.dumps(document).encode()
        self._store.put(_KEY, [data], len(data))

    def _load(self) -> None:
        try:
            document: dict[str, Any] = json.loads(self._store.read(_KEY))
            if document["format"] != _FORMAT:
                return
            self.repository = str(document["repository"])
            self.generation = int(document["generation"])
            for key, (*token, version) in document["synced"].items():
                self.synced[key] = Synced(Token(*token), version)
            self.whole = {key: Token(*token) for key, token in document["whole"].items()}
            self.held = {key: Token(*token) for key, token in document["held"].items()}
        except Missing:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            # Only a memory: without it local files count as changed, and are pushed again.
            self.synced, self.whole, self.held = {}, {}, {}
