"""The storing thread leaves the cores to training, except while training waits for it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import get_native_id

import pytest

from onward.training.courtesy import Courtesy

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SCHED_IDLE"), reason="this system has no priorities of threads"
)


def test_a_thread_gives_way_except_while_it_is_waited_for() -> None:
    """Else who waits for it waits for everything else on the machine, too."""
    courtesy = Courtesy()
    with ThreadPoolExecutor(1, initializer=courtesy.give_way) as pool:
        thread = pool.submit(get_native_id).result()
        assert os.sched_getscheduler(thread) == os.SCHED_IDLE
        with courtesy.awaited():
            assert os.sched_getscheduler(thread) == os.SCHED_OTHER
            with courtesy.awaited():
                pass
            assert os.sched_getscheduler(thread) == os.SCHED_OTHER
        assert os.sched_getscheduler(thread) == os.SCHED_IDLE
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with courtesy.awaited():
        pass  # the thread has ended


def test_a_thread_that_begins_while_it_is_waited_for() -> None:
    """It does not give way until nobody waits, though it begins after the waiting did."""
    courtesy = Courtesy()
    with ThreadPoolExecutor(1, initializer=courtesy.give_way) as pool:
        with courtesy.awaited():
            thread = pool.submit(get_native_id).result()
            assert os.sched_getscheduler(thread) == os.SCHED_OTHER
        assert os.sched_getscheduler(thread) == os.SCHED_IDLE
