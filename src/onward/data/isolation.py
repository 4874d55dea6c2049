"""Runs code on randomness of its own, and leaves the program's as it was."""

from __future__ import annotations

import random
from typing import Any, Self

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from onward.data import python_random


class Isolated:
    """The global random generators of Python and NumPy, seeded for a while.

    A framework's own is added by a subclass. One thing is not given back: the spare Gaussian number
    that NumPy's legacy generator keeps after an odd number of draws. Reading it takes 60 µs, which
    is too much per batch; instead, `forget_spare_gaussian` drops it before every batch, in every
    mode of loading alike.
    """

    def __init__(self) -> None:
        # Swapping NumPy's bit generator takes 1 µs, saving and restoring its state takes 120.
        self._numpy = np.random.MT19937(0)
        self._seed = 0
        self._saved: tuple[Any, Any, Any] | None = None

    def seeded(self, seed: int) -> Self:
        """While entered, every global random generator continues from `seed`."""
        self._seed = seed
        return self

    def __enter__(self) -> None:
        self._saved = (python_random.save(), get_bit_generator(), self._save_own())
        set_bit_generator(self._numpy)
        self.seed_all(self._seed)

    def __exit__(self, *error: object) -> None:
        assert self._saved is not None
        python, numpy, own = self._saved
        self._saved = None
        python_random.restore(python)
        set_bit_generator(numpy)
        self._restore_own(own)

    def seed_all(self, seed: int) -> None:
        """Seeds the global generators of this process, for good."""
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)

    def _save_own(self) -> Any:
        return None

    def _restore_own(self, saved: Any) -> None:
        return None


def forget_spare_gaussian() -> None:
    """Makes NumPy's legacy generator forget the second number of its last Gaussian pair."""
    set_bit_generator(get_bit_generator())
