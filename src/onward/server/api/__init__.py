"""The REST API: a file of routes for each kind of thing. Routes translate; services decide."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """Every router, in the order of the OpenAPI document."""
    from onward.server.api import (
        access,
        asking,
        code,
        jobs,
        logs,
        metrics,
        models,
        operations,
        plan,
        schedules,
        storages,
        streams,
        webhooks,
    )

    return [
        jobs.router, asking.router, logs.router, metrics.router, streams.router, code.router,
        plan.router, storages.router, models.router, schedules.router, webhooks.router,
        access.router, operations.router,
    ]  # fmt: skip
