"""What the documents say is what there is: commands, links, errors, code."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from onward import errors
from onward.cli.commands import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def console_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_onward_command_in_the_documents_exists(page: Path) -> None:
    """Commands and options that a reader copies are known to the command line."""
    for line in console_lines(page):
        words = shlex.split(line, comments=True)
        if words[:1] != ["onward"]:
            continue
        own = words[1 : words.index("--")] if "--" in words else words[1:]
        command: click.Command | None = main
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), own.pop(0) if own else "")
        assert command is not None, line
        known = {name for option in command.params for name in option.opts}
        assert [w for w in own if w.startswith("--") and w not in known] == [], line


def test_every_make_target_in_the_readme_exists() -> None:
    """`make demo` and `make test` are what the first screen promises."""
    makefile = (ROOT / "Makefile").read_text()
    targets = [w.split()[1] for w in console_lines(ROOT / "README.md") if w.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """No page points to a file that is not there."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_in_the_documents_compiles(page: Path) -> None:
    """What a reader copies is Python, but for the `…` that stands for what they have."""
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(code.replace("=…", "=0").replace("…, ", ""), page.name, "exec")


def test_every_test_that_the_table_of_frameworks_names_exists() -> None:
    """docs/frameworks.md claims nothing that no test shows; every row of its table has some."""
    page = (ROOT / "docs" / "frameworks.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 50
    for file, test in named:
        text = (ROOT / file).read_text()
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"
    rows = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    shown = re.findall(r"^(\d+)\. `tests/", page, re.MULTILINE)
    assert rows == shown == [str(number) for number in range(1, len(rows) + 1)]
    notes = set(re.findall(r"^- \*\*(\w)\*\* ", page, re.MULTILINE))
    table = "".join(re.findall(r"^\| \d+ .*$", page, re.MULTILINE))
    assert set(re.findall(r" ([a-z])(?= \||,)", table)) == notes


def test_the_drawn_exception_tree_is_the_real_one() -> None:
    """errors.py opens with its tree; names, order and depth are those of the classes."""
    drawn = re.findall(r"^((?:[│├└─ ]{4})*)([A-Z]\w+)  ", errors.__doc__ or "", re.MULTILINE)
    depths = {name: len(indent) // 4 for indent, name in drawn}
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert depths.keys() == classes.keys()
    for name, kind in classes.items():
        parents = [base for base in kind.__mro__[1:] if base.__module__ == errors.__name__]
        assert depths[name] == len(parents), name


def test_every_command_in_the_readme_table_is_one_of_the_commands() -> None:
    """The changelog names every command there is."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"`(onward )?{name}`", changelog), name
