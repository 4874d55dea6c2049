"""What a server tells about itself: `/metrics` for Prometheus, and a line for what matters."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onward.jobs.states import JOB_MOVES
from onward.server.database import Database
from onward.server.database.tables import Attempt, Delivery, Job
from onward.server.names import now_s

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_log = structlog.get_logger()


class Observations:
    """The counters of one application, in a registry of its own."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "onward_requests", "Requests by route, method and status.",
            ("route", "method", "status"), registry=self.registry,
        )  # fmt: skip
        self.durations = Histogram(
            "onward_request_seconds", "How long requests took, streams left out.",
            ("route",), buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.registry.register(_Index(database))


class _Index(Collector):
    """What the database knows, counted when it is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        return []  # nothing is asked of the database before somebody wants to know

    def collect(self) -> Iterable[Metric]:
        with self._database.read() as session:
            jobs = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
            ends = session.execute(
                select(Attempt.state, Attempt.cause, func.count()).group_by(
                    Attempt.state, Attempt.cause
                )
            ).all()
            oldest = session.scalar(select(func.min(Job.updated_at)).where(Job.state == "queued"))
            unsent = session.scalar(
                select(func.count()).select_from(Delivery).where(Delivery.done_at.is_(None))
            )
        by_state = GaugeMetricFamily("onward_jobs", "Jobs by state.", labels=["state"])
        for state in JOB_MOVES:
            by_state.add_metric([state], jobs.get(state, 0))
        by_cause = GaugeMetricFamily(
            "onward_attempts", "Attempts by state and by the cause of their end.",
            labels=["state", "cause"],
        )  # fmt: skip
        for state, cause, number in ends:
            by_cause.add_metric([state, cause], number)
        yield by_state
        yield by_cause
        yield GaugeMetricFamily(
            "onward_longest_queued_seconds", "How long the job that waits longest has waited.",
            value=now_s() - oldest if oldest is not None else 0.0,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "onward_messages_waiting", "Messages to webhooks that are not sent yet.",
            value=unsent or 0,
        )  # fmt: skip


_GONE = 499
"""As web servers count clients that did not wait; there is no status of HTTP for it."""


class Observer:
    """Counts every request, refused ones as well, and logs what changes something or fails."""

    def __init__(self, app: ASGIApp, observations: Observations) -> None:
        self.app = app
        self.observations = observations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 500
        streams = False
        request_id = secrets.token_hex(8)

        async def sending(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                streams = any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in headers
                )
                headers.append((b"x-request-id", request_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            # Gone before all of its request was here: nothing failed, and nobody hears an answer.
            status = _GONE
        except Exception:
            _log.exception("request failed", request=request_id, **_about(scope))
            raise
        finally:
            self._count(scope, status, time.perf_counter() - began_s, streams, request_id)

    def _count(
        self, scope: Scope, status: int, seconds: float, streams: bool, request_id: str
    ) -> None:
        route = getattr(scope.get("route"), "path", "") or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.observations.requests.labels(route, method, str(status)).inc()
        if not streams:
            self.observations.durations.labels(route).observe(seconds)
        if method not in ("GET", "HEAD") or status >= 400:
            _log.info(
                "request", request=request_id, status=status, ms=round(seconds * 1e3, 1),
                **_about(scope),
            )  # fmt: skip


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _about(scope: Scope) -> dict[str, Any]:
    # Never the query: people put into it what they should not.
    principal = scope.get("state", {}).get("principal")
    client = scope.get("client")
    return {
        "method": scope["method"][:20],
        "path": scope["path"][:500],
        "by": principal.name if principal is not None else "",
        "remote": client[0] if client else "",
    }
