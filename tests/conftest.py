"""Fixtures that all tests share."""

import os
from importlib.util import find_spec

from tests.servers import rclone, seaweedfs

__all__ = ["rclone", "seaweedfs"]

# MindSpore has an environment of its own (see the Makefile), and tests that are named for it.
_MINDSPORE = ["test_mindspore*.py", "*/test_mindspore*.py"]
collect_ignore_glob = [] if find_spec("mindspore") else _MINDSPORE

# Hundreds of scripts and agents are started: each would compile all of Onward anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
