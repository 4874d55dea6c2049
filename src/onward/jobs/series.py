"""Series: what a numbered file's name says about what it is a version of, and which one.

Names are read as the field writes them:

- `ckpt_9.pth`, `e1_s900.pth`: integers are versions, compared from left to right.
- `net-12_391.ckpt` (MindSpore: prefix, epoch, step): in a folder that holds files of its prefix
  already, `ModelCheckpoint` appends `_1`, `_2`, … to it, so that `net_1-2_391.ckpt` is younger than
  all of `net-…`. What else is in a prefix is a name: `resnet18` and `resnet50` are two things.
- `epoch=9-step=100-v1.ckpt`, `last-v1.ckpt` (Lightning): a second file of the same name.
- `checkpoint-500/…` (transformers, DeepSpeed, Megatron, accelerate): the folder is the version, and
  everything in it belongs to it.
- `0.93` measures something and counts nothing; `1-of-4`, `rank2` count the pieces of one thing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_INTEGER = re.compile(r"\d+")
_DECIMAL = re.compile(r"(?:(?<==)-)?(?<![\d.])\d+\.\d+(?:e[-+]?\d+)?(?![a-z\d]|\.\d)", re.I)
_PIECE = (
    r"\d+[-_]of[-_]\d+"
    r"|(?<![a-z])(?:rank|shard|part|worker|proc|process|tp|pp|dp|mp|rng_state|random_states)"
    r"[-_.]?\d+"
    r"|__\d+_\d+(?=\.distcp)"
)
_FIXED = re.compile(_PIECE, re.I)
# Each process of a MindSpore job may have a folder of its own, named by its rank.
_FIXED_IN_MINDSPORE_FOLDERS = re.compile(_PIECE + r"|(?<![^/])ckpt_\d+(?=/)", re.I)

_MINDSPORE = re.compile(
    r"(?P<folder>(?:.*/)?)(?P<prefix>[^/]+?)(?P<restarts>(?:_\d+)*)"
    r"-(?:(?P<epoch>\d+)_(?P<step>\d+)(?P<end>(?:_breakpoint)?\.(?:ckpt|safetensors))"
    r"|(?P<graph>graph\.meta))"
)
_LIGHTNING = re.compile(r"(?P<name>.*=-?[\d.]+|(?:.*/)?last)(?:-v(?P<version>\d+))?\.ckpt")
_FOLDER = re.compile(
    r"(?:[^/]+/)*?(?:[^/]*(?<![a-z]))?(?:checkpoint|ckpt|global_step|step|epoch|iter|iteration)"
    r"[-_=.]?\d[^/]*/",
    re.I,
)


class Version(NamedTuple):
    """What a file is a version of, and where it stands in that series: a larger order is newer.

    `name` is the file's key, or its folder's where that is the version. `words` says what the
    numbers mean where that is known.
    """

    series: str
    order: tuple[int, ...]
    name: str
    words: str = ""


def version_of(key: str) -> Version:
    """What the name says; a file without numbers is a series of its own."""
    if match := _MINDSPORE.fullmatch(key):
        return _mindspore(key, match)
    if match := _FOLDER.match(key):
        series, order = _template(match.group())
        return Version(series, order, match.group())
    if match := _LIGHTNING.fullmatch(key):
        series, order = _template(match["name"])
        return Version(f"{series}\2.ckpt", (*order, int(match["version"] or 0)), key)
    series, order = _template(key)
    return Version(series, order, key)


def _mindspore(key: str, match: re.Match[str]) -> Version:
    folder, order = _template(match["folder"], _FIXED_IN_MINDSPORE_FOLDERS)
    # A prefix may itself end in a number: `net_1` restarts as `net_1_1`, which is between it and
    # `net_2`, as in a table of contents. -1 ends the list, so that the shorter one comes first.
    restarts = [int(digits) for digits in _INTEGER.findall(match["restarts"])]
    order = (*order, *restarts, -1)
    words = f"restart {'.'.join(map(str, restarts))}" if restarts else ""
    if match["graph"]:
        return Version(f"{folder}{match['prefix']}\2{match['graph']}", order, key, words)
    epoch, step = int(match["epoch"]), int(match["step"])
    words = (words + ", " if words else "") + f"epoch {epoch}, step {step}"
    series = f"{folder}{match['prefix']}\2{match['end']}"
    return Version(series, (*order, epoch, step), key, words)


def _template(text: str, fixed: re.Pattern[str] = _FIXED) -> tuple[str, tuple[int, ...]]:
    """The text with its numbers blanked, except those of pieces; and those that are integers."""
    template: list[str] = []
    numbers: list[int] = []
    position = 0
    for piece in [*fixed.finditer(text), None]:
        between = text[position : piece.start() if piece is not None else len(text)]
        between = _DECIMAL.sub("\1", between)
        numbers += [int(digits) for digits in _INTEGER.findall(between)]
        template.append(_INTEGER.sub("\0", between))
        if piece is not None:
            template.append(piece.group())
            position = piece.end()
    return "".join(template), tuple(numbers)
