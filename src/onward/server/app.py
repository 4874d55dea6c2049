"""The application: everything put together, in the order in which a request meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from onward._version import __version__
from onward.engines import Engine
from onward.errors import OnwardError
from onward.server.api import routers
from onward.server.api.document import describe
from onward.server.api.status import status_route
from onward.server.children import end_children
from onward.server.code.pinning import clear_unfinished
from onward.server.console import pages
from onward.server.console.errors import error_page, wants_page
from onward.server.database import Database
from onward.server.jobs.submitting import store_at
from onward.server.logs.series import SeriesCache
from onward.server.logs.streams import Streams
from onward.server.models.librarian import Librarian
from onward.server.models.verifying import Verifier
from onward.server.observing import Observations, Observer
from onward.server.problems import problem, problem_of
from onward.server.scheduling import Supervisor
from onward.server.scheduling.clock import Clock
from onward.server.security.attempts import Desk, WrongTokens
from onward.server.security.gatekeeper import Gatekeeper
from onward.server.security.headers import Headers
from onward.server.security.limits import Limits
from onward.server.security.login import Login
from onward.server.security.origins import Origins
from onward.server.security.principals import Principals
from onward.server.settings import Settings
from onward.server.webhooks.courier import Courier

_MEDIA = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Parts:
    """What routes and threads work with."""

    settings: Settings
    database: Database
    engine: Engine


def make_app(parts: Parts) -> FastAPI:
    """The application over an open database. It starts no thread before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clear_unfinished(parts.settings)
        supervisor = Supervisor(parts.settings, parts.database, parts.engine)
        app.state.supervisor = supervisor
        clock = Clock(
            parts.settings, parts.database,
            lambda location: store_at(parts.settings, parts.database, location),
            submitted=supervisor.wake,
        )  # fmt: skip
        courier = Courier(parts.settings, parts.database)
        librarian = Librarian(parts.settings, parts.database)
        verifier = Verifier(parts.settings, parts.database)
        threads = (supervisor, clock, courier, librarian, verifier)
        for each in threads:
            each.start()
        try:
            yield
        finally:
            await app.state.streams.close()
            # Before its child is ended, which it would take for a failure.
            await run_in_threadpool(verifier.stop)
            end_children()
            for each in threads:
                await run_in_threadpool(each.stop)

    app = FastAPI(
        title="Onward", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )  # fmt: skip
    app.state.parts = parts
    app.state.streams = Streams(parts.database, parts.settings.attempts)
    app.state.series = SeriesCache()
    app.router.routes.append(status_route(parts.database))
    for router in [*routers(), *pages()]:
        app.include_router(router)
    describe(app)
    _answer_errors(app)
    app.state.observations = Observations(parts.database)
    principals = Principals(parts.database)
    app.state.principals = principals
    desk = Desk(principals, WrongTokens())
    # The last one added is met first.
    app.add_middleware(Limits, settings=parts.settings)
    app.add_middleware(
        Gatekeeper, principals=principals, desk=desk,
        login=Login(parts.settings, parts.database, principals, desk),
        origins=Origins(parts.settings.host, parts.settings.hosts),
    )  # fmt: skip
    app.add_middleware(Observer, observations=app.state.observations)
    app.add_middleware(Headers, tls=parts.settings.tls_certificate is not None)
    return app


def _answer_errors(app: FastAPI) -> None:
    def answer(request: Request, document: dict[str, Any], headers: Any = None) -> Response:
        if wants_page(request):
            return error_page(request, document)
        return JSONResponse(document, document["status"], headers, media_type=_MEDIA)

    @app.exception_handler(OnwardError)
    def ours(request: Request, error: OnwardError) -> Response:
        return answer(request, problem_of(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [
            {"where": ".".join(map(str, each["loc"])), "what": each["msg"]}
            for each in error.errors()[:50]
        ]
        why = "; ".join(f"{each['where']}: {each['what']}" for each in found)
        document = problem(
            422, "Invalid", "the request is not as the API describes it", why=why,
            do="see /api/v1/openapi.json",
        )  # fmt: skip
        return answer(request, {**document, "errors": found})

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        document = problem(error.status_code, "HTTP", str(error.detail))
        return answer(request, document, error.headers)
