"""The thread that sends messages, each until it is received or was tried often enough.

A message is marked as sent after its receiver said so: a server that dies between the two sends it
again, with the same id, by which receivers know it. None is lost, and order is not promised.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from onward._version import __version__
from onward.errors import OnwardError
from onward.server.database import Database
from onward.server.database.tables import Delivery, Webhook
from onward.server.names import now_s
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.webhooks.posting import post
from onward.server.webhooks.signing import signed_headers

_log = logging.getLogger("onward.webhooks")

WAITS_S: Sequence[float] = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)
"""After each try that failed. A message is tried once more than there are waits: for 16 hours."""

_TIMEOUT_S = 15.0
_AT_ONCE = 8
_LOOK_EVERY_S = 0.5
_PAUSE_AFTER_FAILURE_S = 2.0
_KEPT_S = 30 * 86400.0
_SWEEP_EVERY_S = 3600.0


class Courier:
    """`start` and `stop` its thread, or call `deliver` yourself, which waits for what it sends."""

    def __init__(
        self, settings: Settings, database: Database, *, waits_s: Sequence[float] = WAITS_S,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._database = database
        self._waits_s = waits_s
        self._timeout_s = timeout_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="onward-webhook")
        self._under_way: dict[str, Future[None]] = {}

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="onward-courier", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """What is being sent may end; what is not marked by then is sent again by the next."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def deliver(self) -> None:
        """Sends what is due, and waits for it."""
        self._send_due()
        for future in list(self._under_way.values()):
            future.result()

    def sweep(self) -> None:
        """Forgets messages that were done with a month ago."""
        with self._database.write() as session:
            session.execute(delete(Delivery).where(Delivery.done_at < now_s() - _KEPT_S))

    def _work(self) -> None:
        swept_s = -_SWEEP_EVERY_S
        while not self._stopping.is_set():
            wait_s = _LOOK_EVERY_S
            try:
                self._send_due()
                if time.monotonic() - swept_s >= _SWEEP_EVERY_S:
                    swept_s = time.monotonic()
                    self.sweep()
            except SQLAlchemyError:
                _log.exception("the database did not answer; trying again")
                wait_s = _PAUSE_AFTER_FAILURE_S
            except Exception:
                _log.exception("a look at the messages failed; trying again")
                wait_s = _PAUSE_AFTER_FAILURE_S
            self._stopping.wait(wait_s)

    def _send_due(self) -> None:
        for message in [id_ for id_, future in self._under_way.items() if future.done()]:
            failure = self._under_way.pop(message).exception()
            if failure is not None:
                _log.error("message %s could not be seen to: %s", message, failure)
        free = _AT_ONCE - len(self._under_way)
        if free <= 0:
            return
        due = (
            select(Delivery.id)
            .where(Delivery.done_at.is_(None), Delivery.next_at <= now_s())
            .order_by(Delivery.next_at)
            .limit(_AT_ONCE + free)
        )
        with self._database.read() as session:
            messages = [id_ for id_ in session.scalars(due) if id_ not in self._under_way]
        for message in messages[:free]:
            self._under_way[message] = self._pool.submit(self._send, message)

    def _send(self, message: str) -> None:
        with self._database.read() as session:
            delivery = session.get(Delivery, message)
            webhook = session.get(Webhook, delivery.webhook) if delivery is not None else None
        if delivery is None or delivery.done_at is not None:
            return
        if webhook is None:
            self._note(delivery, "given up: the webhook was removed", for_good=True)
            return
        self._note(delivery, self._post(delivery, webhook))

    def _post(self, delivery: Delivery, webhook: Webhook) -> str:
        """What went wrong; '' if the receiver has it."""
        body = json.dumps(delivery.body, separators=(",", ":"), sort_keys=True).encode()
        try:
            secret = read_secret(self._settings, webhook.secret)
            headers = signed_headers(secret, delivery.id, body, at=int(now_s()))
            headers["User-Agent"] = f"onward/{__version__}"
            status = post(
                webhook.url, body, headers, allow_private=webhook.allow_private,
                timeout_s=self._timeout_s,
            )  # fmt: skip
        except OnwardError as error:
            return error.sentence()
        except (OSError, http.client.HTTPException) as error:
            return f"it could not be reached: {str(error)[:200] or type(error).__name__}"
        if 200 <= status < 300:
            return ""
        if 300 <= status < 400:
            return f"it answered {status}, and redirects are not followed"
        return f"it answered {status}"

    def _note(self, delivery: Delivery, problem: str, *, for_good: bool = False) -> None:
        now, tries = now_s(), delivery.tries + 1
        done_at: float | None = now
        next_at = delivery.next_at
        if problem and not for_good:
            if tries <= len(self._waits_s):
                done_at, next_at = None, now + self._waits_s[tries - 1]
            else:
                problem = f"given up after {tries} tries: {problem}"
        with self._database.write() as session:
            session.execute(
                update(Delivery)
                .where(Delivery.id == delivery.id, Delivery.done_at.is_(None))
                .values(tries=tries, next_at=next_at, done_at=done_at, problem=problem)
            )
