"""What an agent tells the script that it starts, by environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from onward.training.wishes import NO_WISHES, Wishes, read_margin

OUTPUT = "ONWARD_OUTPUT"
OUTPUT_URL = "ONWARD_OUTPUT_URL"
CLAIM = "ONWARD_CLAIM"
VERB = "ONWARD_VERB"
CHECKPOINT = "ONWARD_CHECKPOINT"
BRANCH_FROM = "ONWARD_BRANCH_FROM"
DATA = "ONWARD_DATA"
DATA_SNAPSHOT = "ONWARD_DATA_SNAPSHOT"
DATA_FILES = "ONWARD_DATA_FILES"
EVENTS_FD = "ONWARD_EVENTS_FD"
SAVE_EVERY = "ONWARD_SAVE_EVERY"
MTBF_HOURS = "ONWARD_MTBF_HOURS"
SAVE_EVERY_STEPS = "ONWARD_SAVE_EVERY_STEPS"
SAVE_EVERY_SECONDS = "ONWARD_SAVE_EVERY_SECONDS"
ON_DAMAGE = "ONWARD_ON_DAMAGE"
KEEP = "ONWARD_KEEP"
SPACE = "ONWARD_SPACE"
TRACK = "ONWARD_TRACK"
AUDIT_OF = "ONWARD_AUDIT_OF"
AUDIT_SAMPLE = "ONWARD_AUDIT_SAMPLE"
STRATEGY = "ONWARD_STRATEGY"
BUDGET = "ONWARD_BUDGET"
MARGIN = "ONWARD_MARGIN"
PROMOTE = "ONWARD_PROMOTE"


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables above, read once. Empty text where a variable is not set."""

    output: str = ""
    output_url: str = ""
    claim_writer: str = ""
    claim_generation: int | None = None
    verb: str = ""
    checkpoint: str = ""
    branch_from: str = ""
    data: str = ""
    data_snapshot: str = ""
    data_files: str = ""
    """As `onward.data.file_list` packs them; empty where there are too many."""
    events_fd: int | None = None
    save_every: str = ""
    mtbf_hours: float | None = None
    save_every_steps: int | None = None
    save_every_seconds: float | None = None
    on_damage: str = ""
    keep: str = ""
    """Rules of retention as JSON, such as `{"keep_last": 3}`."""
    track: tuple[str, ...] = ()
    """Trackers to tell, by name, beside those that the script names."""
    audit_of: str = ""
    """`<output>@<checkpoint id>`: train a full retrain of what that checkpoint learned."""
    audit_sample: float = 1.0
    """On which share of its data, above 0 and up to 1."""
    wishes: Wishes = NO_WISHES
    """What the job asks of an increment, whatever the script says."""


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """What the agent said; empty where there is none."""
    found = os.environ if variables is None else variables
    writer, _, generation = found.get(CLAIM, "").partition(":")
    fd = found.get(EVENTS_FD, "")
    steps, seconds = found.get(SAVE_EVERY_STEPS, ""), found.get(SAVE_EVERY_SECONDS, "")
    return Environment(
        output=found.get(OUTPUT, ""),
        output_url=found.get(OUTPUT_URL, ""),
        claim_writer=writer,
        claim_generation=int(generation) if generation.isdigit() else None,
        verb=found.get(VERB, ""),
        checkpoint=found.get(CHECKPOINT, ""),
        branch_from=found.get(BRANCH_FROM, ""),
        data=found.get(DATA, ""),
        data_snapshot=found.get(DATA_SNAPSHOT, ""),
        data_files=found.get(DATA_FILES, ""),
        events_fd=int(fd) if fd.isdigit() else None,
        save_every=found.get(SAVE_EVERY, ""),
        mtbf_hours=float(found[MTBF_HOURS]) if found.get(MTBF_HOURS) else None,
        save_every_steps=int(steps) if steps else None,
        save_every_seconds=float(seconds) if seconds else None,
        keep=found.get(KEEP, ""),
        on_damage=found.get(ON_DAMAGE, ""),
        track=tuple(filter(None, found.get(TRACK, "").split(","))),
        audit_of=found.get(AUDIT_OF, ""),
        audit_sample=float(found.get(AUDIT_SAMPLE) or 1.0),
        wishes=Wishes(
            found.get(STRATEGY, ""),
            found.get(BUDGET, ""),
            read_margin(found.get(MARGIN, "")),
            found.get(PROMOTE, "") != "no",
        ),
    )
