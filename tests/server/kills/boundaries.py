"""Where the server ends transactions: found in its source, and recognised while it runs.

A boundary is named by the function that ends the transaction, such as
`scheduling/care.py Care._conclude`; where a function ends several, by their order as well.
Savepoints are among them. So a test can tell that there is one at which no server ever died.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onward.server

ROOT = Path(onward.server.__file__).parent
_ENDS = ("database.write()", "database.engine.begin()", "session.begin_nested()")
_SEAM = "database/opening.py"


@dataclass(frozen=True, slots=True)
class Boundary:
    """A `with` statement whose end is the end of a transaction."""

    file: str
    function: str
    first_line: int
    last_line: int
    order: int
    """Among those of its function, from 1; 0 where it is the only one."""

    @property
    def name(self) -> str:
        return f"{self.file} {self.function}" + (f" #{self.order}" if self.order else "")


@cache
def boundaries() -> tuple[Boundary, ...]:
    """All that the source of the server has."""
    return tuple(
        each
        for path in sorted(ROOT.rglob("*.py"))
        if "migrations" not in path.parts
        for each in _in_file(path)
    )


def here() -> str:
    """The name of the boundary at which the caller's thread is; '' for one of another program."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and str(path.relative_to(ROOT)) != _SEAM:
            return _at(str(path.relative_to(ROOT)), frame.f_code.co_qualname, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _at(file: str, function: str, line: int) -> str:
    around = [
        each for each in boundaries()
        if each.file == file and each.function == function
        and each.first_line <= line <= each.last_line
    ]  # fmt: skip
    assert around, f"no transaction ends at {file}:{line} in {function}"
    return max(around, key=lambda each: each.first_line).name


def _in_file(path: Path) -> list[Boundary]:
    file = str(path.relative_to(ROOT))
    found = list(_in_node(ast.parse(path.read_text()), ""))
    return [
        Boundary(
            file, function, node.lineno, node.end_lineno or node.lineno,
            order=(0 if len(same) == 1 else 1 + same.index(node)),
        )
        for function, node in found
        for same in [[other for name, other in found if name == function]]
    ]  # fmt: skip


def _in_node(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.With]]:
    for child in ast.iter_child_nodes(node):
        within = inside
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            within = f"{inside}{child.name}.<locals>."
        elif isinstance(child, ast.ClassDef):
            within = f"{inside}{child.name}."
        elif isinstance(child, ast.With) and any(
            ast.unparse(item.context_expr).endswith(_ENDS) for item in child.items
        ):
            yield inside.removesuffix(".<locals>."), child
        yield from _in_node(child, within)
