"""Which MindSpore, and which NumPy beside it, Onward is tested with. Needs neither."""

from __future__ import annotations

import re

from onward.errors import UsageError
from onward.frameworks.versions import Tested

TESTED = Tested(
    "mindspore",
    (2, 10),
    (2, 10),
    older="its optimizers, random generators and pipelines keep their state in another way there",
    newer="an exact resume depends on how its optimizers, random generators and pipelines keep "
    "their state, and these are not known yet",
)


def check_versions(mindspore: str, numpy: str) -> None:
    """Raises `UsageError` outside of the tested range, and for a NumPy that breaks MindSpore."""
    TESTED.check(mindspore)
    major = re.match(r"\d+", numpy)
    if major and int(major[0]) >= 2:
        raise UsageError(
            f"mindspore {mindspore} does not work with numpy {numpy}",
            why="it calls what NumPy 2 has taken away: labels that are numbers and some operators "
            "fail in the middle of training",
            do="pip install 'numpy<2' (PyTorch works with that one, too)",
        )
