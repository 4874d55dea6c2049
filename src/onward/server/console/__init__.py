"""The console: pages of the server for people. Pages translate; the services of `server/` decide.

Everything that a browser loads comes from here: no script, style or font of anybody else's host.
"""

from __future__ import annotations

from fastapi import APIRouter


def pages() -> list[APIRouter]:
    """The routers of every page, static files among them."""
    from onward.server.console import assets
    from onward.server.console.pages import (
        browse,
        checkpoint,
        data,
        first,
        job,
        jobs,
        learning,
        look,
        models,
        new_job,
        savings,
        schedules,
        settings,
    )

    return [
        assets.router, first.router, look.router, jobs.router, new_job.router, browse.router,
        job.router, checkpoint.router, learning.router, data.router, savings.router, models.router,
        schedules.router, settings.router,
    ]  # fmt: skip
