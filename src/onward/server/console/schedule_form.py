"""The part of a new job's form that says when it starts: by the clock, or when data has arrived."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from onward.errors import UsageError
from onward.server.api.schedules import ScheduleChange
from onward.server.console.forms import wrong
from onward.server.console.job_form import JobForm
from onward.server.database.tables import Schedule
from onward.server.jobs.translation import data_of
from onward.server.scheduling.cron import checked_cron, zone_of
from onward.server.spec import JobRequest

_FIELDS = {"name": "schedule_name", "cron": "cron", "timezone": "timezone"}


def is_later(form: JobForm) -> bool:
    """Whether a schedule is asked for rather than a job at once."""
    return form.value("start") in ("cron", "watch")


def values_of(schedule: Schedule) -> Mapping[str, str]:
    """What the form shows of a schedule beside its job."""
    return {
        "schedule": schedule.id, "schedule_name": schedule.name, "start": schedule.kind,
        "cron": schedule.cron, "timezone": schedule.timezone,
    }  # fmt: skip


def read_schedule(form: JobForm, job: JobRequest) -> ScheduleChange | None:
    """The schedule of this job, or None with the form's `errors` filled."""
    is_cron = form.value("start") == "cron"
    cron, timezone = form.value("cron"), form.value("timezone") or "UTC"
    if is_cron and not cron:
        form.errors["cron"] = form.spoken.t("This is needed.")
    if not is_cron and not data_of(job):
        form.errors["input_location_1"] = form.spoken.t("A watch needs data to look at.")
    try:
        found = ScheduleChange(
            name=form.value("schedule_name") or job.name, kind="cron" if is_cron else "watch",
            cron=cron if is_cron else "", timezone=timezone if is_cron else "UTC", job=job,
        )  # fmt: skip
    except ValidationError as error:
        for each in error.errors(include_input=False):
            form.errors.setdefault(_FIELDS.get(str(each["loc"][0]), ""), wrong(form.spoken, each))
        return None
    for field, check, text in (("cron", checked_cron, cron), ("timezone", zone_of, timezone)):
        if is_cron and text:
            try:
                check(text)
            except UsageError as error:
                told = (form.spoken.said(part) for part in (error.what, error.do) if part)
                form.errors.setdefault(field, ". ".join(told))
    return None if form.errors else found
