"""What crash tests share."""

from __future__ import annotations

import pytest

from onward.repository import filling, log


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ahead with one thread: thousands of tiny outputs are opened faster without more."""
    monkeypatch.setattr(log, "_THREADS", 1)
    monkeypatch.setattr(filling, "_THREADS", 1)
