"""TensorBoard: each increment a run directory, with event files that need no framework to write.

A process that goes on writes a file of its own. It begins with the mark by which TensorBoard
hides what an earlier process told of the same steps (`SessionLog.START`, as `purge_step` of
PyTorch's SummaryWriter does); then these steps are told again, which TensorBoard's quick loader,
which knows no marks, takes as their replacement.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from onward.errors import UsageError
from onward.trackers.base import Row, Series, Status, flat
from onward.trackers.names import need

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_MODEL = "model"


class TensorBoard:
    """Event files below `folder`: `increment-1`, …, and `model` for the curves over increments.

    By default in `tensorboard/` in the output, where `tensorboard --logdir OUTPUT` finds them. A
    folder of its own belongs to one model.
    """

    name = "tensorboard"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = Path(folder) if folder is not None else None
        self._series: Series | None = None
        self._facts: dict[str, str] = {}
        self._newest = 0
        self._events: _EventFile | None = None
        self._of_model: _EventFile | None = None

    def check(self, folder: Path | None) -> None:
        need("tensorboard", extra="tensorboard", what="tracking with TensorBoard")
        if self._folder is None:
            if folder is None:
                raise UsageError(
                    "TensorBoard needs a folder",
                    why="the output is on an object store, where TensorBoard writes no files",
                    do='give one, trackers=onward.trackers.TensorBoard("runs"), or start the '
                    "script by `onward run`, which moves files to the output",
                )
            self._folder = folder / "tensorboard"

    def begin(self, series: Series) -> None:
        self._close()
        self._series = series
        self._facts = dict(series.facts)
        self._newest = series.step
        self._events = self._open(series.name, series.step)
        text = dict(flat(series.config, "config."))
        self._events.write_text("onward", _table({**self._facts, **text}), series.step)
        self._events.flush()

    def tell(self, rows: Sequence[Row]) -> None:
        assert self._series is not None
        if self._events is None:  # what was written last may be torn: go on in another file
            self._events = self._open(self._series.name, rows[0].step)
        try:
            _write(self._events, rows)
        except Exception:
            events, self._events = self._events, None
            _abandon(events)
            raise
        self._newest = max(self._newest, rows[-1].step)

    def tell_model(self, rows: Sequence[Row]) -> None:
        if self._of_model is None:
            self._of_model = self._open(_MODEL, rows[0].step)
        try:
            _write(self._of_model, rows)
        except Exception:
            events, self._of_model = self._of_model, None
            _abandon(events)
            raise

    def note(self, facts: Mapping[str, str]) -> None:
        self._facts.update(facts)

    def end(self, status: Status) -> None:
        assert self._series is not None
        if self._events is not None:
            self._facts["status"] = status
            self._events.write_text("onward", _table(self._facts), self._newest)
            self._events.flush()
        self._close()

    def _open(self, run: str, step: int) -> _EventFile:
        assert self._folder is not None
        return _EventFile(self._folder / run, step)

    def _close(self) -> None:
        for file in (self._events, self._of_model):
            if file is not None:
                file.close()
        self._events = self._of_model = None


class _EventFile:
    """One file of events, read after those that are in its folder already."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        earlier = [int(m[1]) for m in map(_NAME.match, os.listdir(folder)) if m]
        # Files are read in the order of their names: a clock that was set back, or a second file
        # in one second, must not come before what it goes on from.
        began_s = max(int(time.time()), max(earlier, default=0) + 1)
        name = f"events.out.tfevents.{began_s:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file: IO[bytes] = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._put(file_version="brain.Event:2")
        # Always: earlier files may be on another machine.
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._put(step=step, session_log=start)
        self.flush()

    def write_row(self, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            # Every reader understands `simple_value`, also those that hide by the mark above.
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in row.values.items()
        ]
        self._put(step=row.step, wall_time=row.time_s, summary=Summary(value=values))

    def write_text(self, tag: str, text: str, step: int) -> None:
        from tensorboard.compat.proto import tensor_pb2, types_pb2
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

        plugin = SummaryMetadata.PluginData(plugin_name="text")
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
        value = Summary.Value(
            tag=f"{tag}/text_summary", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor
        )
        self._put(step=step, summary=Summary(value=[value]))

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

    def _put(self, wall_time: float | None = None, **fields: Any) -> None:
        now_s = time.time() if wall_time is None else wall_time
        self._records.write(self._event.Event(wall_time=now_s, **fields).SerializeToString())


def _write(events: _EventFile, rows: Sequence[Row]) -> None:
    for row in rows:
        events.write_row(row)
    events.flush()


def _abandon(events: _EventFile) -> None:
    try:
        events.close()
    except OSError:
        return


def _table(facts: Mapping[str, str]) -> str:
    """As Markdown, which TensorBoard shows."""
    cells = {name: text.replace("|", "\\|").replace("\n", " ") for name, text in facts.items()}
    return "\n".join(["| | |", "|-|-|", *(f"| {n} | {text} |" for n, text in cells.items())])
