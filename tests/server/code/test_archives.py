"""Archives that strangers made: what is honest is unpacked, what is hostile changes nothing."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onward.errors import OnwardError
from onward.server.code import Limits
from onward.server.code.archives import unpack
from onward.server.code.tree import Tree, digest_of, walk
from onward.server.problems import BadCode
from tests.server.code.archived import tar, zipped

LIMITS = Limits(
    archive_bytes=1 << 20, total_bytes=4 << 20, file_bytes=2 << 20, files=50, depth=4, ratio=50
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    folder = tmp_path / "around" / "tree"
    folder.mkdir(parents=True)
    (tmp_path / "around" / "canary").write_text("untouched")
    return Tree(folder, LIMITS)


def planted(archive: io.BytesIO, tree: Tree) -> str:
    unpack(archive, tree)
    return tree.finish()


def files_around(tree: Tree) -> list[str]:
    above = tree.folder.parent
    return sorted(
        str(place.relative_to(above))
        for place in above.rglob("*")
        if not place.is_relative_to(tree.folder)
    )


def test_tar_and_zip_of_the_same_files_are_the_same_code(tmp_path: Path) -> None:
    """The digest is of paths, modes and bytes: neither of the archive nor of its order."""
    digests = set()
    for number, archive in enumerate(
        (
            tar(("train.py", b"1"), ("lib/a.py", b"2"), ("link.py", "lib/a.py")),
            tar(("./lib/a.py", b"2"), (".", None), ("./train.py", b"1"), ("link.py", "lib/a.py")),
            tar(("lib", None), ("link.py", "lib/a.py"), ("lib/a.py", b"2"), ("train.py", b"1"),
                mode="w"),
            zipped(("lib/a.py", b"2"), ("train.py", b"1"), ("link.py", "lib/a.py")),
        )
    ):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        tree = Tree(folder, LIMITS)
        unpack(archive, tree)
        digests.add(tree.finish())
        assert [path for path, _ in walk(folder)] == ["lib/a.py", "link.py", "train.py"]
        assert (folder / "link.py").read_bytes() == b"2"
    assert len(digests) == 1


def test_what_is_executable_stays_so_and_changes_the_digest(tmp_path: Path) -> None:
    """Modes are part of the code; those of owners and set-uid are not."""
    digests = []
    for number, mode in enumerate((0o644, 0o600, 0o755, 0o4755)):
        folder = tmp_path / str(number)
        folder.mkdir()
        tree = Tree(folder, LIMITS)
        unpack(tar(("run.sh", b"x"), mode="w"), tree) if mode == 0o644 else unpack(
            _with_mode(mode), tree
        )
        digests.append(tree.finish())
        assert (folder / "run.sh").stat().st_mode & 0o7777 == (0o755 if mode & 0o100 else 0o644)
    assert digests[0] == digests[1] != digests[2] == digests[3]


def _with_mode(mode: int) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("run.sh")
        info.size, info.mode = 1, mode
        archive.addfile(info, io.BytesIO(b"x"))
    return out


PATHS = [
    "../canary", "/etc/passwd", "a/../../canary", "a/..", "..", "a//b", "C:\\x\\y", "..\\canary",
    "a\nb", "a/./b", "x/" * 5 + "deep", "n" * 256, "\u202egnp.py", "a/../b", "\x1b[2J",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_path_that_leads_elsewhere_is_refused(tree: Tree, path: str, kind: str) -> None:
    """Nothing is written outside of the tree, whatever an archive says."""
    before = files_around(tree)
    if kind == "tar":
        archive = tar((path, b"evil"), ("ok.py", b""))
    else:
        archive = zipped((path, b"evil"), ("ok.py", b""))
    with pytest.raises(BadCode):
        planted(archive, tree)
    assert files_around(tree) == before
    assert (tree.folder.parent / "canary").read_text() == "untouched"


def test_a_name_with_a_null_is_refused(tree: Tree) -> None:
    """Archives end names there; whoever else brings files must not."""
    with pytest.raises(BadCode):
        tree.add_file("a\0b", [b"x"])


LINKS = [
    [("out", "../canary")],
    [("out", "/etc/passwd")],
    [("out", "..")],
    [("self", "self")],
    [("a", "b"), ("b", "a")],
    [("nowhere", "missing.py")],
    [("a", "."), ("b", "a/../../canary")],
    [("d/l", "."), ("d/out", "l/../../../canary")],
]


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_link_that_leads_out_or_nowhere_is_refused(
    tree: Tree, links: list[tuple[str, str]], pack: object
) -> None:
    """Links stay within the code, also where several of them together would leave it."""
    with pytest.raises(BadCode):
        planted(pack(("train.py", b"x"), *links), tree)  # type: ignore[operator]


def test_no_file_is_written_through_a_link(tree: Tree) -> None:
    """The classic: a link first, then a file `through` it."""
    with pytest.raises(BadCode, match="twice"):
        planted(tar(("gate", ".."), ("gate/canary", b"evil")), tree)
    assert (tree.folder.parent / "canary").read_text() == "untouched"


@pytest.mark.parametrize(
    "type_",
    [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_devices_pipes_and_hard_links_are_refused(tree: Tree, type_: bytes) -> None:
    """Only files, folders and links are code."""
    with pytest.raises(BadCode):
        unpack(tar(("x", None), type=type_, linkname="/etc/passwd"), tree)


@pytest.mark.parametrize(
    "names", [("Train.py", "train.py"), ("a/x", "A/y"), ("\u00e9.py", "e\u0301.py"), ("a", "a"),
              ("a", "a/b"), ("stra\u00dfe", "STRASSE")],
)  # fmt: skip
def test_names_that_are_one_elsewhere_are_refused(tree: Tree, names: tuple[str, str]) -> None:
    """Whoever unpacks code on another machine gets what was pinned."""
    with pytest.raises(BadCode):
        unpack(tar(*((name, b"x") for name in names)), tree)


def test_too_many_files_folders_and_bytes_are_refused(tree: Tree) -> None:
    """Each limit holds by itself."""
    many = [(f"{number}.py", b"") for number in range(LIMITS.files + 1)]
    folders = [(f"{number}", None) for number in range(LIMITS.files + 1)]
    large = [("large", os.urandom(LIMITS.file_bytes + 1))]
    only = dataclasses.replace(LIMITS, ratio=10**9, archive_bytes=1 << 30)
    for members, word in ((many, "files"), (folders, "files"), (large, "bytes")):
        with pytest.raises(BadCode, match=word):
            unpack(tar(*members), Tree(tree.folder, only))
        for left in tree.folder.iterdir():
            left.unlink()


def test_a_bomb_is_refused_before_it_fills_the_disk(tree: Tree) -> None:
    """What unpacks to far more than it is: in a stream, in an entry, in a header."""
    zeros = io.BytesIO(gzip.compress(b"\0" * (64 << 20)))
    flat = tar(("zeros", b"\0" * (3 << 20)))
    entries = zipped(*((f"{number}", b"\0" * (2 << 20)) for number in range(20)))
    for bomb in (zeros, flat, entries):
        with pytest.raises(BadCode, match="far more"):
            unpack(bomb, tree)
    assert not list(tree.folder.iterdir())


def test_a_header_that_is_itself_a_bomb_is_refused() -> None:
    """tarfile reads extended headers whole: one of 32 MiB is not read."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, 32 << 20
        archive.addfile(info, io.BytesIO(b"x" * (32 << 20)))
    generous = Limits(archive_bytes=1 << 30)
    with pytest.raises(BadCode, match="header"):
        unpack(out, Tree(Path("/nonexistent"), generous))


def test_a_zip_that_lies_about_sizes_is_refused(tree: Tree) -> None:
    """Bytes are counted as they come, not as they are announced."""
    data = bytearray(zipped(("liar", b"\0" * (1 << 20))).getvalue())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = struct.pack("<I", 3)
    with pytest.raises(BadCode):
        planted(io.BytesIO(bytes(data)), tree)


def test_encrypted_and_unusual_zips_are_refused(tree: Tree) -> None:
    """Decoders that may ask for gigabytes are never started."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x", b"x" * 1000)
    with pytest.raises(BadCode, match="unusual"):
        unpack(out, tree)
    data = bytearray(zipped(("x", b"secret")).getvalue())
    data[data.index(b"PK\1\2") + 8] |= 1
    data[data.index(b"PK\3\4") + 6] |= 1
    with pytest.raises(BadCode, match="encrypted"):
        unpack(io.BytesIO(bytes(data)), tree)


def test_an_empty_archive_is_refused(tree: Tree) -> None:
    """Code holds a file."""
    with pytest.raises(BadCode, match="no file"):
        planted(tar(), tree)


def test_what_git_and_python_leave_is_no_code(tree: Tree) -> None:
    """A checkout and a plain copy are the same code."""
    unpack(tar(("a.py", b"1"), (".git/config", b"x"), ("__pycache__/a.pyc", b"x")), tree)
    tree.finish()
    assert [path for path, _ in walk(tree.folder)] == ["a.py"]


HONEST = [tar(("train.py", b"print()"), ("lib/a.py", b"2" * 500)).getvalue(),
          tar(("train.py", b"print()"), ("l", "train.py"), mode="w").getvalue(),
          zipped(("train.py", b"print()"), ("l", "train.py")).getvalue()]  # fmt: skip


@given(st.sampled_from(HONEST), st.data())
@settings(
    max_examples=400 if os.environ.get("ONWARD_TEST_SCALE") != "full" else 20_000,
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_damaged_archives_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, honest: bytes, data: st.DataObject
) -> None:
    """Whatever the bytes are, the end is a tree or a typed error, never anything else."""
    broken = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(1, len(broken)))]
    folder = tmp_path_factory.mktemp("tree")
    tree = Tree(folder, LIMITS)
    try:
        unpack(io.BytesIO(bytes(broken)), tree)
        assert tree.finish() == digest_of(folder)
    except OnwardError:
        pass
