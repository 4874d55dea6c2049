"""`onward wait`: until jobs have ended; their state is its exit status."""

from __future__ import annotations

import time

import click

from onward.cli.options import duration, json_option, write_json, write_lines
from onward.cli.server_options import (
    ENDED,
    STOPPED_SAFELY,
    connect,
    job_line,
    server_option,
    status_of,
)
from onward.errors import JobError


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option(
    "--timeout", "timeout_s", callback=duration, metavar="DURATION",
    help="Give up after 90s, 30m, 2h or 1d; by default never.",
)  # fmt: skip
@server_option
@json_option
def wait(jobs: tuple[str, ...], timeout_s: float | None, server: str, as_json: bool) -> int:
    """Wait until each JOB has ended or is paused.

    Ends with 0: all succeeded, 1: one failed, or the time is over, 75: one was paused, stopped or
    cancelled, and none failed.
    """
    until_s = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    found = []
    with connect(server) as client:
        for job_id in dict.fromkeys(jobs):
            job = client.job(job_id)
            while job["state"] not in (*ENDED, "paused"):
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise JobError(
                        f"job {job_id} is still {job['state']}",
                        why="the time to wait is over; the job goes on",
                        do="the same command waits again",
                    )
                job = client.wait(job_id, timeout_s=left_s)
            found.append(job)
            if not as_json:
                write_lines([job_line(job)])
    if as_json:
        write_json({"jobs": found})
    statuses = {status_of(job["state"]) for job in found}
    return 1 if 1 in statuses else STOPPED_SAFELY if STOPPED_SAFELY in statuses else 0
