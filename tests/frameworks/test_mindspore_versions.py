"""Only tested versions of MindSpore, beside a NumPy that it works with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onward.errors import UsageError
from onward.frameworks.mindspore_versions import check_versions


@pytest.mark.parametrize("version", ["2.9.1", "1.10.0", "2.11.0", "3.0.0rc1", "2.100.0", "unknown"])
def test_a_version_that_was_not_tested_is_refused(version: str) -> None:
    """It names the range, and the command that installs a version within it."""
    with pytest.raises(UsageError, match=r"outside of the tested range, 2\.10") as caught:
        check_versions(version, "1.26.4")
    assert "pip install 'mindspore>=2.10,<2.11'" in caught.value.do


@pytest.mark.parametrize("version", ["2.10.0", "2.10.3", "2.10.0rc1"])
def test_tested_versions_are_taken(version: str) -> None:
    """All of the range, beside any NumPy 1."""
    check_versions(version, "1.25.0")
    check_versions(version, "1.26.4")


def test_a_numpy_that_breaks_mindspore_is_refused() -> None:
    """It fails in the middle of training otherwise: `numpy<2` is what to install."""
    with pytest.raises(UsageError, match=r"does not work with numpy 2\.1\.0") as caught:
        check_versions("2.10.0", "2.1.0")
    assert "'numpy<2'" in caught.value.do


SCRIPT = """
import mindspore, numpy, onward
{package}.__version__ = "{version}"
onward.open("out", net=mindspore.nn.Dense(2, 2))
"""


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [("mindspore", "2.9.0", "tested range, 2.10"), ("numpy", "2.4.0", "work with numpy 2.4.0")],
)
def test_open_says_so_before_anything_is_made(
    package: str, version: str, words: str, tmp_path: Path
) -> None:
    """The check is part of opening an output for a network of MindSpore."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(package=package, version=version)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "onward.errors.UsageError" in done.stderr
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
