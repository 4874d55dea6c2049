"""MindSpore's own `save_checkpoint`: two formats, at once, by a thread or by a process."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any, ClassVar

import mindspore as ms

from benchmarks.checkpointing.subjects.base import Subject


class MindSpore(Subject):
    """A new file per checkpoint. It is whole when it has its name; synced here, as for the others.

    The library waits for a save on its way before it begins another, and at the process's end; it
    has no call to wait. Here its thread or its process is joined.
    """

    format: ClassVar[str] = "ckpt"
    crc: ClassVar[bool] = False
    by: ClassVar[bool | str] = False

    def place(self, index: int) -> Path:
        return super().place(index).with_suffix(f".{self.format}")

    def save(self, index: int) -> None:
        ms.save_checkpoint(
            self.training.train_net, str(self.place(index)),
            async_save=self.by, format=self.format, crc_check=self.crc,
        )  # fmt: skip
        self.settle(index, self._joined)

    def restore(self, index: int) -> None:
        found = ms.load_checkpoint(str(self.place(index)), format=self.format, crc_check=self.crc)
        missing, _ = ms.load_param_into_net(self.training.train_net, found, strict_load=True)
        assert not missing, missing

    def _joined(self) -> None:
        workers: list[Any] = [*threading.enumerate(), *multiprocessing.active_children()]
        for worker in workers:
            if worker.name == "asyn_save_ckpt":
                worker.join()


def _kind(kind: str, by: bool | str = False, *, crc: bool = False) -> type[MindSpore]:
    options = [f'format="{kind}"', *([f"async_save={by!r}"] if by else [])]
    options += ["crc_check=True"] if crc else []
    name = "-".join(["ms", kind, *([by] if isinstance(by, str) else []), *(["crc"] * crc)])
    facts = {
        "name": name, "format": kind, "by": by, "crc": crc, "asynchronous": bool(by),
        "setup": f"`save_checkpoint(train_net, …, {', '.join(options)})`, "
        "`load_checkpoint` and `load_param_into_net`",
    }  # fmt: skip
    return type(name, (MindSpore,), facts)


Ckpt = _kind("ckpt")
CkptCrc = _kind("ckpt", crc=True)
CkptThread = _kind("ckpt", "thread")
CkptProcess = _kind("ckpt", "process")
Safetensors = _kind("safetensors")
SafetensorsCrc = _kind("safetensors", crc=True)
SafetensorsThread = _kind("safetensors", "thread")
SafetensorsProcess = _kind("safetensors", "process")
