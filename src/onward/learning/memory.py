"""The replay memory: samples of earlier increments, for when their data cannot be reached."""

from __future__ import annotations


class Memory:
    """A bounded number of remembered samples."""
