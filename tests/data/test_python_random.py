"""Python's global generator is saved and restored exactly, in either way."""

from __future__ import annotations

import random

import pytest

from onward.data import python_random


@pytest.mark.parametrize("words_found", [True, False])
def test_the_generator_draws_on_from_where_it_was_saved(
    words_found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every position of its words, and with a spare Gaussian number or without."""
    if not words_found:
        monkeypatch.setattr(python_random, "_words", None)
    for position in (0, 1, 311, 623, 624, 700):
        for spare in (False, True):
            random.seed(position)
            for _ in range(position):
                random.getrandbits(32)
            if spare:
                random.gauss(0, 1)
            exactly = random.getstate()
            saved = python_random.save()
            expected = [random.random() for _ in range(1000)]
            random.seed(5)
            random.gauss(0, 1)
            python_random.restore(saved)
            assert random.getstate() == exactly
            assert [random.random() for _ in range(1000)] == expected


def test_the_words_are_found_on_cpython() -> None:
    """The quick way is in use where this is tested; elsewhere the slow one is right too."""
    assert python_random._words is not None
