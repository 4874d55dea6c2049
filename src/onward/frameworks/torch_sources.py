"""Tensors whose bytes must be fetched: on an accelerator, or on the host in another order."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from onward.errors import Unsettled

Bytes = npt.NDArray[np.uint8]


class Lane(Protocol):
    """A way from one device to the host, beside what the device computes."""

    def follow(self) -> None:
        """What is fetched from here on is fetched after all that the device was told so far."""

    def fetch(self, tensor: torch.Tensor) -> Bytes:
        """A flat tensor of bytes, in memory of the calling thread; returns when it is there."""


class StreamLane:
    """A side stream and, for each thread, page-locked memory: the copy engine does the work."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._stream = module.Stream(device=device)
        self._own = threading.local()

    def follow(self) -> None:
        self._stream.wait_stream(self._module.current_stream(self._device))

    def fetch(self, tensor: torch.Tensor) -> Bytes:
        buffer = self._buffer(tensor.numel())
        with self._module.stream(self._stream):
            buffer.copy_(tensor, non_blocking=True)
            arrived = self._module.Event()
            arrived.record(self._stream)
        arrived.synchronize()  # sleeps without the interpreter's lock
        return buffer.numpy()

    def _buffer(self, size_bytes: int) -> torch.Tensor:
        buffer: torch.Tensor | None = getattr(self._own, "buffer", None)
        if buffer is None or buffer.numel() < size_bytes:
            buffer = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
            self._own.buffer = buffer
        return buffer[:size_bytes]


@cache
def lane_of(device: torch.device) -> Lane | None:
    """The lane of a device that has streams; None for the host and for devices without."""
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    needed = ("Stream", "Event", "stream", "current_stream")
    return StreamLane(module, device) if all(hasattr(module, name) for name in needed) else None


class TensorSource:
    """One tensor as it is now, to be fetched a little later.

    The version counter is only a tripwire: fused optimizers and writes through `.data` do not move
    it. What guards the copy is that optimizers wait for it.
    """

    def __init__(self, tensor: torch.Tensor, lane: Lane | None) -> None:
        self._tensor = tensor
        self._version = tensor._version
        self._lane = lane
        self.piecewise = tensor.is_contiguous()
        if lane is not None:
            lane.follow()

    def fetch(self, start: int, stop: int) -> Bytes:
        dense = self._tensor.contiguous()
        # Not reshape(-1): a single element may be contiguous and yet have any stride.
        flat = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)[start:stop]
        found = flat.cpu().numpy() if self._lane is None else self._lane.fetch(flat)
        if self._tensor._version != self._version:
            raise Unsettled(
                "a tensor changed while it was being copied",
                why="the script writes parameters outside of an optimizer's step",
                do='open the output with snapshot="eager", which copies everything at once',
            )
        return found
