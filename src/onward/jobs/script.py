"""What a script is started with: its command line and its environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from onward.jobs.spec import JobSpec
from onward.repository import Writer
from onward.stores import parse
from onward.training import environment as names
from onward.training.opening import Asked, Beginning
from onward.training.space import space_limit

_NONE: Mapping[str, Path] = MappingProxyType({})
_OURS = frozenset(value for name, value in vars(names).items() if name.isupper())


def script_command(
    spec: JobSpec, *, output: Path, data: Path | None, inputs: Mapping[str, Path] = _NONE
) -> list[str]:
    """This very Python, the script, the places if passed as arguments, its own arguments.

    `inputs` are the places of `spec.inputs`, by name.
    """
    places: list[str] = []
    for name, how, path in _places(spec, output=output, data=data, inputs=inputs):
        if how == "argument":
            places += [f"--{name}", str(path)]
    return [sys.executable, spec.script, *places, *spec.arguments]


def _places(
    spec: JobSpec, *, output: Path, data: Path | None, inputs: Mapping[str, Path]
) -> list[tuple[str, str, Path]]:
    known = {**inputs, spec.output_name: output}
    if data is not None:
        known[spec.data_name] = data
    return [(name, how, known[name]) for name, how in spec.parameters() if name in known]


def script_environment(
    spec: JobSpec,
    variables: Mapping[str, str],
    *,
    output: Path,
    data: Path | None,
    inputs: Mapping[str, Path] = _NONE,
    data_snapshot: str,
    data_files: str,
    writer: Writer,
    asked: Asked,
    beginning: Beginning,
    pin: bool,
) -> dict[str, str]:
    """The agent's own variables and what it tells the script (`training/environment.py`).

    With `pin` the script is told the checkpoint that was chosen, not only the one that was named:
    it is the one that was fetched and verified.
    """
    # A job that was started within another one's script must not inherit that one's claim.
    told = {name: value for name, value in variables.items() if name not in _OURS}
    told.setdefault("PYTHONUNBUFFERED", "1")
    told[names.OUTPUT] = str(output)
    told[names.OUTPUT_URL] = parse(spec.output).url
    told[names.CLAIM] = f"{writer.writer}:{writer.generation}"
    told[names.VERB] = asked.verb
    checkpoint = asked.checkpoint
    if pin and beginning.commit is not None:
        checkpoint = beginning.commit.checkpoint
    origin = beginning.origin
    optional = {
        names.CHECKPOINT: checkpoint,
        names.BRANCH_FROM: f"{origin['url']}@{origin['checkpoint']}" if origin else "",
        names.DATA: str(data) if data is not None else "",
        names.DATA_SNAPSHOT: data_snapshot,
        names.DATA_FILES: data_files,
        names.ON_DAMAGE: asked.on_damage if asked.on_damage != "raise" else "",
        names.TRACK: ",".join(spec.track),
        names.STRATEGY: spec.strategy,
        names.BUDGET: spec.budget,
        names.MARGIN: f"{spec.margin!r}" if spec.margin is not None else "",
        names.PROMOTE: "" if spec.promote else "no",
        names.AUDIT_OF: spec.audit_of,
        names.AUDIT_SAMPLE: f"{spec.audit_sample!r}" if spec.audit_of else "",
        names.SAVE_EVERY: spec.save_every or "",
        names.MTBF_HOURS: f"{spec.mtbf_hours:g}" if spec.mtbf_hours else "",
        names.SAVE_EVERY_STEPS: str(spec.save_every_steps or ""),
        names.SAVE_EVERY_SECONDS: f"{spec.save_every_seconds:g}" if spec.save_every_seconds else "",
    }
    retention = spec.retention()
    if retention.drops_anything:
        optional[names.KEEP] = json.dumps(retention.document())
    limit = space_limit(spec.space)
    if limit is not None:
        optional[names.SPACE] = str(limit)
    for name, how, path in _places(spec, output=output, data=data, inputs=inputs):
        if how == "env":
            optional[name.upper()] = str(path)
    told.update({name: value for name, value in optional.items() if value})
    return told
