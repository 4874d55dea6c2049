"""The results as text: for the console, and as the generated part of docs/benchmarks.md.

    python -m benchmarks.checkpointing.report RESULTS.json [MORE.json …] \\
        --into docs/benchmarks.md --plot docs/checkpointing.svg

Several files are several runs, of other scenarios each, on one machine.
What stands between the two marks in the page is replaced, so that page and results agree.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

from benchmarks.checkpointing.plot import drawing
from benchmarks.checkpointing.results import Results
from benchmarks.checkpointing.scenarios import SCENARIOS
from benchmarks.checkpointing.subjects import OURS
from benchmarks.checkpointing.targets import verdicts

BEGIN = "<!-- begin: python -m benchmarks.checkpointing.report -->"
END = "<!-- end: python -m benchmarks.checkpointing.report -->"

DEFINITIONS = """\
Every library, scenario and repetition has processes of its own, one after another, and each
repetition begins with another library. The training is real: forward, backward, optimizer; weights,
moments and batches follow from a seed. A value is the median over the saves of one process; tables
show the median over repetitions, then the range. The first save of a process is kept apart, and a
save begins when the one before is durable.

- **stall**: the save call and the next two steps, less two ordinary steps. Those steps change every
  trained tensor at once, so a library that returns early and blocks or slows the next step pays
  here. An ordinary step is the median of the same process while nothing is saved.
- **call**: until the save call returned.
- **lost**: the save call and all steps until durable, less as many ordinary steps: what one save
  costs the training in all.
- **pace**: steps per second from the call's return until durable, divided by steps per second
  without a save. Not for libraries that write before they return.
- **durable**: from the save call until every file and folder of the checkpoint is fsynced, while
  the loop waits. Where a library does not do that itself, a thread of the benchmark does, for
  every library the same. A save without fsync is not charged for it in *stall*.
- **cold** and **warm** restore: into live objects whose tensors exist and differ, in a fresh
  process, with the checkpoint's files out of the page cache and in it. Reading a number of each
  page is included, so that a mapped file counts when it is read; importing and building are not.
- **stored**: blocks on the disk after all saves, all kept, per size of the state.
- **memory**: the highest resident memory while saving above that of steps before the library was
  begun, children
  included, per size of the state.
- **CPU**: seconds of CPU per save, children included, while the loop waits.

After the last save the state changes, and what a fresh process restores must be the state at the
moment of the save, bit for bit; a library that fails this is marked WRONG and is nobody's measure.
"""

Cell = Callable[[float], str]


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _share(value: float) -> str:
    return f"{value:.2f}"


COLUMNS: tuple[tuple[str, str, Cell], ...] = (
    ("stall", "stall_s", seconds),
    ("first stall", "first_stall_s", seconds),
    ("call", "call_s", seconds),
    ("lost", "lost_s", seconds),
    ("pace", "pace", _share),
    ("durable", "durable_s", seconds),
    ("cold", "cold_s", seconds),
    ("warm", "warm_s", seconds),
    ("stored", "bytes", _times),
    ("memory", "peak", _times),
    ("CPU", "cpu_s", seconds),
)


def console(results: Results) -> str:
    """For the end of a run."""
    return "\n".join(
        line
        for part in (_tables(results), _notes(results), [""], _targets(results))
        for line in part
    )


def page(results: Results, plot: str = "") -> str:
    """The generated part of the page, marks included. `plot` is the drawing's relative path."""
    of_mindspore = results.scenarios() == ["m"]
    lines = [
        BEGIN.replace("report", "report of MindSpore") if of_mindspore else BEGIN,
        "",
        "```console",
        *(f"$ {command}" for command in results.command.split("; ")),
        "```",
        "",
    ]
    lines += [f"{results.machine}. {_versions(results)}.", "", *_targets(results), ""]
    if plot:
        lines += [f"![Stall, time to durable, restore and bytes by library]({plot})", ""]
    if not of_mindspore:  # its part follows the other, and the same words mean the same
        lines += [*DEFINITIONS.splitlines(), ""]
    lines += [*_tables(results), *_notes(results), ""]
    lines += [END.replace("report", "report of MindSpore") if of_mindspore else END]
    return "\n".join(lines)


def replaced(text: str, part: str) -> str:
    """`text` with `part` in the place of what stood between the marks, or at its end."""
    begin, *_, end = part.splitlines()
    if begin not in text:
        return f"{text.rstrip()}\n\n{part}\n"
    before, _, rest = text.partition(begin)
    return before + part + rest.partition(end)[2]


def _versions(results: Results) -> str:
    return ", ".join(f"{name} {version}" for name, version in results.versions.items())


def _targets(results: Results) -> Iterator[str]:
    yield "| what | target | median | range | repetitions | |"
    yield "|---|---|---|---|---|---|"
    for verdict in verdicts(results):
        median = f"{verdict.median:.3g}" if verdict.values else "–"
        yield (
            f"| {verdict.what} | {verdict.target} | {median} | {verdict.spread} "
            f"| {len(verdict.values)} | {verdict.word} |"
        )


def _tables(results: Results) -> Iterator[str]:
    for scenario in results.scenarios():
        one = results.of(scenario, results.subjects(scenario)[0])[0].saved
        scale = "" if results.scale == 1.0 else f" × {results.scale:g}"
        yield (
            f"**({scenario}) {SCENARIOS[scenario].title}{scale}**: a state of "
            f"{one['state_bytes'] / 1e6:,.0f} MB, {one['last'] + 1} saves, an ordinary step of "
            f"{seconds(one['step_s'])}."
        )
        yield ""
        yield "| | " + " | ".join(name for name, _, _ in COLUMNS) + " |"
        yield "|---" * (len(COLUMNS) + 1) + "|"
        for subject in _ours_first(results.subjects(scenario)):
            right = results.is_right(scenario, subject)
            cells = [_cell(results, scenario, subject, c) for c in COLUMNS]
            yield f"| {subject}{'' if right else ' **WRONG**'} | " + " | ".join(cells) + " |"
        yield from _unverified(results, scenario)
        yield ""


def _ours_first(subjects: list[str]) -> list[str]:
    return sorted(subjects, key=lambda name: (name != OURS, name))


def _unverified(results: Results, scenario: str) -> Iterator[str]:
    if not results.values(scenario, OURS, "cold_unverified_s"):
        return
    cells = ["" for _ in COLUMNS]
    for position, (_, figure, show) in enumerate(COLUMNS):
        if figure in ("cold_s", "warm_s"):
            column = ("", figure.replace("_s", "_unverified_s"), show)
            cells[position] = _cell(results, scenario, OURS, column)
    yield f"| {OURS}, not verified | " + " | ".join(cells) + " |"


def _cell(results: Results, scenario: str, subject: str, column: tuple[str, str, Cell]) -> str:
    values = results.values(scenario, subject, column[1])
    if not values:
        return "–"
    show = column[2]
    middle = show(statistics.median(values))
    if len(values) == 1 or show(min(values)) == show(max(values)):
        return middle
    return f"{middle} ({show(min(values))} – {show(max(values))})"


def _notes(results: Results) -> Iterator[str]:
    if results.limits:
        size = results.limits[0]["bytes"]
        rates = ", ".join(
            f"{what} {size / 1e9 / statistics.median(one[name] for one in results.limits):.2f}"
            for what, name in (
                ("memory copied by all cores", "copy_s"),
                ("written and fsynced", "write_s"),
                ("with early write-back", "write_early_s"),
                ("direct", "write_direct_s"),
                ("read cold", "read_s"),
                ("read direct", "read_direct_s"),
            )
        )
        yield f"This machine's own limits, GB/s for {size / 1e9:.2f} GB, in the same run: {rates}."
        yield ""
    yield "How each is used:"
    yield ""
    used = {one.subject: one.saved["setup"] for one in results.measured}
    for name in _ours_first(list(used)):
        yield f"- {name}: {used[name]}"
    for name, why in results.unavailable.items():
        yield f"- {name}: not available here: {why}"
    for failure in results.failed:
        yield f"- FAILED: {failure}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, help="the page; otherwise the part is printed")
    parser.add_argument("--plot", type=Path, help="where the drawing goes")
    arguments = parser.parse_args()
    results = reduce(Results.with_more, map(Results.read, arguments.results))
    plot = ""
    if arguments.plot:
        arguments.plot.write_text(drawing(results))
        plot = arguments.plot.name
    part = page(results, plot)
    if arguments.into:
        arguments.into.write_text(replaced(arguments.into.read_text(), part))
    else:
        print(part)


if __name__ == "__main__":
    main()
