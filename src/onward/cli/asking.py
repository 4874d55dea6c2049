"""`onward stop`, `cancel`, `pause`, `resume`, `retry`, `continue`: what is asked of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from onward.cli.options import json_option, write_json, write_lines
from onward.cli.server_options import connect, data_input, job_line, server_option
from onward.cli.text import clean


def _command(action: str, help_: str) -> click.Command:
    @click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
    @server_option
    @json_option
    def ask(jobs: tuple[str, ...], server: str, as_json: bool) -> int:
        return _ask(jobs, action, server=server, as_json=as_json)

    wrapped: Callable[..., Any] = ask
    return click.command(action, help=help_)(wrapped)


stop = _command("stop", "Save, then end each JOB; what it committed is kept and pushed.")
cancel = _command("cancel", "End each JOB now, without another save; what it committed is pushed.")
pause = _command("pause", "Save, then let each JOB wait until it is resumed.")
resume = _command("resume", "Let each paused JOB go on.")
retry = _command("retry", "Submit what each JOB asked for again, by the same code.")


@click.command("continue")
@click.argument("job")
@click.option("--name", default="", help="Of the new job.")
@click.option("--data", default="", metavar="LOCATION", help="Other data than before.")
@click.option("--budget", default="", help="How much to train, such as '3 epochs' or '1000 steps'.")
@click.option("--strategy", default="", help="How not to forget, such as replay+ewc.")
@server_option
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def continue_(job: str, server: str, as_json: bool, **given: Any) -> None:
    """Submit a job that goes on in the output of JOB, which has ended.

    It resumes what is unfinished, else learns what is new in the data. ARGUMENTS after `--` replace
    those of the script.
    """
    with connect(server) as client:
        spec = client.job(job)["spec"]
        changes: dict[str, Any] = {}
        if given["name"]:
            changes["name"] = given["name"]
        if given["arguments"]:
            changes["command"] = [spec["command"][0], *given["arguments"]]
        if given["data"]:
            inputs = dict(spec.get("inputs") or {})
            name = data_input(inputs)
            inputs[name] = {**inputs.get(name, {}), "location": given["data"]}
            changes["inputs"] = inputs
        increment = {n: given[n] for n in ("budget", "strategy") if given[n]}
        if increment:
            changes["increment"] = {**(spec.get("increment") or {}), **increment}
        new = client.act(job, "continue", changes)
    if as_json:
        write_json(new)
    else:
        write_lines([job_line(new), f"follow it: onward logs -f {new['id']}"])


def _ask(jobs: tuple[str, ...], action: str, *, server: str, as_json: bool) -> int:
    with connect(server) as client:
        if len(jobs) == 1:
            results = [{"id": jobs[0], "job": client.act(jobs[0], action), "problem": None}]
        else:
            results = client.act_on_many(jobs, action)
    if as_json:
        write_json({"results": results})
    else:
        write_lines([_line(result) for result in results])
    return 1 if any(result["problem"] for result in results) else 0


def _line(result: dict[str, Any]) -> str:
    if result["job"] is not None:
        return job_line(result["job"])
    found = result["problem"]
    why = f": {found['why']}" if found["why"] else ""
    return clean(f"{result['id']} not: {found['what']}{why}")
