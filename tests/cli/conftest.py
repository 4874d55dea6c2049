"""Fixtures of the commands' tests: an output, and the program itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onward.cli import main
from tests.cli.outputs import Output

Onward = Callable[..., Result]
AsJson = Callable[..., Any]


@pytest.fixture
def onward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Onward:
    """Runs a command in this process; an exception that is no exit fails the test."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))

    def call(*args: object, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="onward", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        assert "\x1b" not in result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def as_json(onward: Onward) -> AsJson:
    """Runs a command with --json and gives what it wrote."""

    def call(*args: object, code: int = 0) -> Any:
        result = onward(*args, "--json", code=code)
        assert result.stdout.isascii()
        return json.loads(result.stdout)

    return call


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """An output that is claimed and holds nothing yet."""
    return Output(tmp_path / "out")
