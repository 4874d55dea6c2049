"""`onward submit`: a job for the server, from a file or from options."""

from __future__ import annotations

from typing import Any

import click

from onward.cli.job_spec import job_options, read_job, send_code
from onward.cli.logs import follow
from onward.cli.options import json_option, write_json, write_lines
from onward.cli.server_options import connect, job_line, server_option, status_of


@click.command()
@click.argument("what", metavar="SPEC|SCRIPT")
@job_options
@click.option("--watch", is_flag=True, help="Follow its log; end with its status, as `wait` does.")
@server_option
@json_option
def submit(what: str, as_json: bool, server: str, watch: bool, **given: Any) -> int:
    """Submit a job: SPEC.toml, .yaml or .json, or a SCRIPT and the ARGUMENTS after `--`.

    SCRIPT is a path within the code. A LOCATION is `alias:path` in a storage of the server. Options
    change what SPEC says.
    """
    spec, folder = read_job(what, given)
    with connect(server) as client:
        send_code(client, spec, folder)
        job = client.submit(spec)
        if not as_json:
            write_lines([job_line(job)])
            if not watch:
                write_lines([f"follow it: onward logs -f {job['id']}"])
        if not watch:
            if as_json:
                write_json(job)
            return 0
        state = follow(client, job["id"], as_json=as_json)
        if not as_json:
            write_lines([job_line(client.job(job["id"]))])
        return status_of(state)
