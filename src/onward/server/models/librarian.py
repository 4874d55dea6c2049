"""A thread that keeps models up to date with what jobs save. It decides nothing."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from onward.errors import OnwardError
from onward.server.database import Database
from onward.server.models.syncing import sync_outputs
from onward.server.names import now_s
from onward.server.settings import Settings

_EVERY_S = 3.0
_OVERLAP_S = 30.0
"""Rows are written a moment after the time that they bear."""

_log = logging.getLogger(__name__)


class Librarian:
    """Looks every few seconds at the outputs of jobs that changed; at first, at all."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._since = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onward-librarian", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when it looks at nothing any more, or after some seconds: it only reads."""
        self._stop.set()
        self._thread.join(5.0)

    def look(self) -> None:
        """Once."""
        began = now_s()
        sync_outputs(self._settings, self._database, since=self._since, stop=self._stop.is_set)
        self._since = began - _OVERLAP_S

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except (OnwardError, SQLAlchemyError, OSError) as error:
                # The next look does it again; pages look by themselves meanwhile.
                _log.warning("models were not brought up to date: %s", error)
            self._stop.wait(_EVERY_S)
