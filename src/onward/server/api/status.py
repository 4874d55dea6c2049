"""The quick way to one job's status, before all other routes: what is asked most costs least.

The route of the same path in `jobs.py` is what the OpenAPI document shows; it answers the same.
"""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from onward.server.api.documents import JOB_COLUMNS
from onward.server.database import Database
from onward.server.jobs.glancing import JobGlances
from onward.server.jobs.requests import no_such_job


class _JobId(Convertor[str]):
    # What does not match goes on to the route that says what is wrong with it.
    regex = "[a-z0-9-]{1,32}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("job_id", _JobId())


def status_route(database: Database) -> Route:
    """For everybody whom the gatekeeper lets in: reading is the least of all scopes."""
    glances = JobGlances(database, JOB_COLUMNS)

    async def status(request: Request) -> Response:
        request.scope["route"] = route
        job_id = request.path_params["job_id"]
        found = await glances.get(job_id)
        if found is None:
            raise no_such_job(job_id)
        return Response(found, media_type="application/json")

    route = Route("/api/v1/jobs/{job_id:job_id}", status, include_in_schema=False)
    route.methods = {"GET"}
    return route
