"""`onward verify`: is everything there, and is it what was written?"""

from __future__ import annotations

import click

from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    write_json,
    write_lines,
)
from onward.cli.progress import byte_progress
from onward.cli.text import clean, count, on_terminal, painted, size
from onward.errors import Damaged, NewerFormat
from onward.facts.damage import damage_document
from onward.facts.outputs import find
from onward.repository import Commit, Findings, History, Repository
from onward.repository import verify as look_for_damage
from onward.stores import open_store

_LEFTOVERS_SHOWN = 10


@click.command()
@output_argument
@click.argument("checkpoint", metavar="[CHECKPOINT]", default="")
@best_options
@click.option("--every-byte", is_flag=True, help="Read and check every byte, not only lengths.")
@json_option
def verify(
    output: str, checkpoint: str, metric: str, lowest: bool, every_byte: bool, as_json: bool
) -> int:
    """Look for damage in an output, or in what one checkpoint needs.

    The log, the manifests and the lengths of the packs are checked; with --every-byte their
    contents too. Exits with 1 if anything is damaged. Leftovers of saves that were cut off are
    information, not damage.
    """
    repository = Repository(open_store(output))
    try:
        repository.log.load()
    except (Damaged, NewerFormat):
        if checkpoint:
            raise
        # The log breaks off: what stands before that is looked at all the same, and the finding
        # says where it breaks.
    history = repository.history
    chosen = [find(history, checkpoint, metric=metric, lowest=lowest)] if checkpoint else None
    with byte_progress(
        "verifying", lambda: _bytes(repository, chosen), hidden=as_json or not every_byte
    ) as progress:
        findings = look_for_damage(
            repository, commits=chosen, every_byte=every_byte, progress=progress
        )
    if as_json:
        write_json(damage_document(repository, findings, every_byte=every_byte))
    else:
        write_lines(_lines(repository, findings, every_byte))
    return 0 if findings.intact else 1


def _bytes(repository: Repository, chosen: list[Commit] | None) -> int:
    if chosen is None:
        return sum(entry.size_bytes for entry in repository.store.list("onward/packs/"))
    try:
        manifests = [repository.manifest(commit) for commit in chosen]
    except (Damaged, NewerFormat):
        return 0  # what is wrong with it is for the findings to say
    return sum(ref.size for manifest in manifests for ref in manifest.packs.values())


def _lines(repository: Repository, findings: Findings, every_byte: bool) -> list[str]:
    history = repository.history
    where = clean(repository.store.url)
    looked = f"every byte read ({size(findings.bytes_read)})" if every_byte else "lengths checked"
    checked = count(findings.checkpoints, "checkpoint")
    if findings.intact:
        lines = [f"{painted('intact', 'green')}: {where}, {checked}; {looked}"]
    else:
        damaged = len(findings.damaged.keys() - {""})
        lines = [f"{painted('damaged', 'red')}: {where}, {damaged} of {checked}; {looked}"]
        for id_, reasons in findings.damaged.items():
            lines.append(f"  {_name(history, id_)}")
            lines += [f"    - {clean(reason)}" for reason in reasons]
        lines.append(_advice(history, findings))
    if findings.not_here:
        number = count(len(findings.not_here), "checkpoint")
        lines.append(f"{number} not wholly here, and pushed: fetched again when needed")
    if findings.leftovers:
        number = count(len(findings.leftovers), "leftover")
        lines.append(f"{number} of saves that were cut off or dropped; harmless:")
        shown = findings.leftovers if not on_terminal() else findings.leftovers[:_LEFTOVERS_SHOWN]
        lines += [f"  {clean(key)}" for key in shown]
        if len(shown) < len(findings.leftovers):
            lines.append(f"  … {len(findings.leftovers) - len(shown):,} more")
    return lines


def _name(history: History, id_: str) -> str:
    if not id_:
        return "the repository itself"
    commit = history.commits.get(id_)
    if commit is None:
        return f"checkpoint {id_}"
    return f"v{history.versions()[id_]} {id_}  step {commit.step:,}"


def _advice(history: History, findings: Findings) -> str:
    if "" in findings.damaged:
        return "what to do: restore the named file from a copy of this output"
    intact = next((c for c in history.newest_first() if _is_intact(c, findings)), None)
    if intact is None:
        return "what to do: restore the damaged files from a copy of this output"
    name = _name(history, intact.checkpoint)
    return (
        f"what to do: go on from the newest intact one, {name} (--on-damage fall-back), "
        "or restore the damaged files from a copy"
    )


def _is_intact(commit: Commit, findings: Findings) -> bool:
    return commit.checkpoint not in findings.damaged
