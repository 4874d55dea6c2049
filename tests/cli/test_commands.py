"""What all commands share: help, errors, exit statuses, quick starts, quiet ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onward import __version__
from onward.cli import main
from onward.cli.commands import COMMANDS
from onward.cli.outcome import as_outcome, report
from onward.cli.reference import reference
from onward.errors import Damaged, Fenced, Mismatch, NothingNew, OnwardError, Stopped, UsageError
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(onward: Onward, name: str) -> None:
    """--help works, fits 80 columns, and every option but --help is explained or plain."""
    for flag in ("--help", "-h"):
        text = onward(name, flag).stdout
        assert text.startswith(f"Usage: onward {name}")
        assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str) -> None:
    found = command(name)
    each = found.commands.values() if isinstance(found, click.Group) else [found]
    for one in each:
        assert any("--json" in parameter.opts for parameter in one.params), one.name


def test_the_page_of_commands_is_what_they_say() -> None:
    """docs/cli.md is made from the help: python -m onward.cli.reference > docs/cli.md"""
    assert PAGE.read_text("utf-8") == reference()


def test_without_a_command_the_help_is_shown(onward: Onward) -> None:
    text = onward().stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert onward("--version").stdout == f"onward {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    """`onward --help` is quick: no NumPy, no torch, no rich, no repository."""
    code = (
        "import sys, contextlib, io\n"
        "from onward.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])\n"
        "heavy = {'numpy', 'torch', 'rich', 'obstore', 'msgspec', 'onward.repository'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_looking_at_outputs_imports_no_torch(output: Output, tmp_path: Path) -> None:
    output.chain(2)
    code = (
        "import sys, contextlib, io\n"
        "from onward.cli import main\n"
        "def call(*args):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(list(args))\n"
        "out, file = sys.argv[1:]\n"
        "for name in ('log', 'show', 'verify', 'doctor'): call(name, out)\n"
        "call('diff', out, 'v1', 'v2'); call('export', out, file)\n"
        "print(*sorted({'torch', 'rich', 'obstore'} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", code, output.url, str(tmp_path / "f.safetensors")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert (tmp_path / "f.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["frobnicate"], "no such command 'frobnicate'"),
        (["log"], "missing argument 'OUTPUT'"),
        (["log", "out", "--frob"], "no such option"),
        (["log", "out", "-n", "0"], "invalid value for '-n'"),
        (["log", "s3:/bucket"], "did you mean s3://bucket"),
        (["log", "https://host/bucket"], "did you mean s3://bucket?endpoint=https://host"),
        (["log", "nowhere"], "is not an Onward output"),
        (["log", ""], "a location is empty"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    onward: Onward, as_json: AsJson, arguments: list[str], what: str
) -> None:
    """One `error:` line and one `what to do:` line on stderr; with --json an object on stdout."""
    result = onward(*arguments, code=2)
    assert result.stderr.startswith("error: ")
    assert what.lower() in result.stderr.lower()
    assert "what to do: " in result.stderr
    assert result.stdout == ""
    error = as_json(*arguments, code=2)["error"]
    assert sorted(error) == ["do", "type", "what", "why"]


def test_a_file_in_place_of_an_output(onward: Onward, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert onward("log", tmp_path / "file", code=2).stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Damaged("x"), 1),
        (Fenced("x"), 1),
        (UsageError("x"), 2),
        (Mismatch("x", differences=["one", "two"]), 1),
        (NothingNew("x"), 0),
        (Stopped("saved"), 75),
        (Stopped("saved", code=130), 130),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 1),
        (SystemExit(3), 3),
        (SystemExit(None), 0),
        (click.BadParameter("x"), 2),
    ],
)
def test_every_expected_end_has_its_status(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = as_outcome(error)
    assert outcome is not None
    assert report(outcome, as_json=False) == code
    said = capsys.readouterr().err
    assert all(difference in said for difference in getattr(error, "differences", []))


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    assert as_outcome(ZeroDivisionError()) is None


def test_messages_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What an error quotes is shown, not obeyed, and begins no line of its own."""
    evil = "\x1b[31mred\u202e\nerror: fake"
    outcome = as_outcome(OnwardError(evil, why=evil, do=evil))
    assert outcome is not None
    report(outcome, as_json=True)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err
    assert "\u202e" not in captured.err
    assert [line.startswith("error: ") for line in captured.err.splitlines()].count(True) == 1
    assert json.loads(captured.out)["error"]["what"] == evil


def test_json_after_two_dashes_is_the_scripts_own() -> None:
    """`onward run x.py -- --json` does not turn our own errors into JSON."""
    result = CliRunner().invoke(main, ["log", "nowhere-at-all", "--", "--json"])
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_reader_that_goes_away_is_no_error(output: Output) -> None:
    """`onward log | head -1` ends quietly."""
    output.chain(2)
    code = (
        "import os, sys\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "from onward.cli import main\n"
        "main(['log', sys.argv[1]])\n"
    )
    arguments = [sys.executable, "-c", code, output.url]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_ends_with_130(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onward.cli.log.open_output", interrupted)
    assert CliRunner().invoke(main, ["log", output.url]).exit_code == 130


def test_a_terminal_without_our_characters_still_shows_all(output: Output) -> None:
    """Latin-1 output: the lineage in plain characters, foreign names escaped, nothing lost."""
    first = output.save(metrics={"größe": 1.0, "模型": 2.0})
    output.save(parent=first.checkpoint)
    output.save(parent=first.checkpoint)
    environment = {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": ":".join(sys.path)}
    arguments = [sys.executable, "-m", "onward.cli", "log", output.url]
    done = subprocess.run(arguments, capture_output=True, check=True, env=environment)
    text = done.stdout.decode("latin-1")
    assert "* v3" in text
    assert "|-'" in text
    assert "größe 1" in text
    assert "\\u6a21\\u578b 2" in text
