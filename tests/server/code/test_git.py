"""Code from git: the commit that was named, over https, and none of git's other ways."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from onward.errors import OnwardError
from onward.server.code import Limits
from onward.server.code.git import _check_git, gather_git
from onward.server.code.tree import Tree, walk
from onward.server.problems import BadCode
from tests.server.code.git_host import GitHost, git


def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHost]:
    folder = tmp_path / "host"
    folder.mkdir()
    found = GitHost(folder)
    (folder / "gitconfig").write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(found.certificate))
    yield found
    found.close()


@pytest.fixture
def repository(host: GitHost) -> Path:
    folder = host.folder / "code"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    (folder / "train.py").write_text("print(1)\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v1")
    (folder / "train.py").write_text("print(2)\n")
    git(folder, "commit", "-qam", "two")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "tree").mkdir()
    return Tree(tmp_path / "tree", Limits(git_s=20))


@pytest.mark.parametrize(("revision", "text"), [("", "2"), ("main", "2"), ("v1", "1")])
def test_a_branch_or_a_tag_is_the_commit_that_it_is_now(
    host: GitHost, repository: Path, tree: Tree, revision: str, text: str
) -> None:
    """What comes back names the commit, so that the job's source says exactly what ran."""
    commit = gather_git(host.url("code"), revision, tree, addresses=loopback)
    assert commit == git(repository, "rev-parse", f"{revision or 'HEAD'}^{{commit}}")
    assert (tree.folder / "train.py").read_text() == f"print({text})\n"
    assert dict(walk(tree.folder)) == {"run.sh": "executable", "train.py": "file"}


def test_a_commit_by_its_full_name(host: GitHost, repository: Path, tree: Tree) -> None:
    """The one way to name code that nobody can move."""
    first = git(repository, "rev-parse", "v1^{commit}")
    assert gather_git(host.url("code"), first, tree, addresses=loopback) == first
    assert (tree.folder / "train.py").read_text() == "print(1)\n"


def test_hooks_filters_and_submodules_do_nothing(
    host: GitHost, repository: Path, tree: Tree, tmp_path: Path
) -> None:
    """A repository brings bytes; nothing of it is run, and no other repository is fetched."""
    canary = tmp_path / "canary"
    (repository / ".gitattributes").write_text("*.py filter=evil\n")
    (repository / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = x\n\turl = {host.url("other")}\n\tupdate = !touch {canary}\n'
    )
    (repository / "config").write_text(f'[filter "evil"]\n\tsmudge = touch {canary}\n')
    git(repository, "update-index", "--add", "--cacheinfo", "160000," + "1" * 40 + ",x")
    git(repository, "add", ".gitattributes", ".gitmodules", "config")
    git(repository, "commit", "-qm", "evil")
    gather_git(host.url("code"), "main", tree, addresses=loopback)
    assert not canary.exists()
    assert not [path for path in host.requests if "other" in path]


def test_a_link_of_a_commit_stays_within_it(host: GitHost, repository: Path, tree: Tree) -> None:
    """Commits pass the same checks as archives."""
    (repository / "out").symlink_to("../../../etc/passwd")
    git(repository, "add", "out")
    git(repository, "commit", "-qm", "link")
    gather_git(host.url("code"), "main", tree, addresses=loopback)
    with pytest.raises(BadCode, match="out"):
        tree.finish()


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c 'touch CANARY' %", "file:///etc", "ssh://git@host/x.git", "git@host:x.git",
     "http://git.example/x.git", "git://git.example/x", "-oProxyCommand=x", "--upload-pack=x",
     "https://user:pa55word@git.example/x.git", "https:///x.git", "https://git.example:port/x",
     "https::https://git.example/x", "/etc", "https://git.exa mple/x", "https://[::1/x",
     "ftp://git.example/x", "HTTPS://", "fd::17/x", "https://git.example./x.git",
     "https://127.0.0.1\\@git.example/x", "https://git.example\t.evil.example/x",
     " https://git.example/x", "https://git.example/x\n", "https://git.example%00.evil.example/x", "https://\uff47it.example/x",
     "https://git.example#@127.0.0.1/x", "https://127.0.0.1:80;@git.example/x"],
)  # fmt: skip
def test_git_has_one_way_only(tree: Tree, url: str) -> None:
    """Refused before git is started, and before any name is looked up."""

    def asked(host: str, port: int) -> Sequence[str]:
        raise AssertionError((host, port))

    with pytest.raises(BadCode) as caught:
        gather_git(url, "", tree, addresses=asked)
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("written", ["git.example", "GIT.Example"])
def test_the_address_that_was_looked_at_is_the_one_that_is_reached(
    host: GitHost, repository: Path, tree: Tree, written: str
) -> None:
    """Nobody else knows the name, however it is written: were it looked up again, it would fail."""
    assert gather_git(
        host.url("code").replace("git.example", written), "", tree, addresses=loopback
    )
    assert host.requests


@pytest.mark.parametrize("version", ["git version 2.36.9", "git version 1.9.1", "git", ""])
def test_a_git_that_looks_hosts_up_by_itself_is_refused(version: str) -> None:
    """DNS rebinding: the name may mean another place by then."""
    with pytest.raises(OnwardError, match="too old"):
        _check_git(version)
    for good in ("git version 2.37.0", "git version 2.39.5 (Apple Git-154)", "git version 3.0"):
        _check_git(good)


def test_a_host_that_may_not_be_reached_is_not(host: GitHost, repository: Path, tree: Tree) -> None:
    """The guard decides, and its error is what people see."""

    class Private(OnwardError):
        pass

    def refuse(name: str, port: int) -> Sequence[str]:
        assert (name, port) == ("git.example", host.port)
        raise Private("it is a private address")

    with pytest.raises(Private):
        gather_git(host.url("code"), "", tree, addresses=refuse)
    assert host.requests == []


def test_a_redirect_is_not_followed(host: GitHost, repository: Path, tree: Tree) -> None:
    """Or a public host could lead the server to a private one."""
    host.redirect_to = f"https://git.example:{host.port}/elsewhere/.git/info/refs"
    with pytest.raises(BadCode):
        gather_git(host.url("code"), "", tree, addresses=loopback)
    assert not [path for path in host.requests if "elsewhere" in path]


def test_a_host_that_never_answers_is_given_up(
    host: GitHost, repository: Path, tmp_path: Path
) -> None:
    """Nobody can hold a server's thread."""
    host.hold = threading.Event()
    (tmp_path / "tree").mkdir()
    tree = Tree(tmp_path / "tree", Limits(git_s=0.5))
    with pytest.raises(BadCode, match="within"):
        gather_git(host.url("code"), "", tree, addresses=loopback)


def test_a_commit_that_is_too_large_is_given_up(
    host: GitHost, repository: Path, tmp_path: Path
) -> None:
    """Also where it is only large once it is unpacked."""
    (repository / "zeros").write_bytes(b"\0" * (32 << 20))
    git(repository, "add", "zeros")
    git(repository, "commit", "-qm", "large")
    (tmp_path / "tree").mkdir()
    tree = Tree(tmp_path / "tree", Limits(file_bytes=1 << 20))
    with pytest.raises(BadCode, match="more than"):
        gather_git(host.url("code"), "main", tree, addresses=loopback)


def test_what_is_not_there_is_said_by_git(host: GitHost, repository: Path, tree: Tree) -> None:
    """Git's own reason reaches whoever submits, on one line."""
    with pytest.raises(BadCode, match="could not fetch") as caught:
        gather_git(host.url("code"), "no-such-branch", tree, addresses=loopback)
    assert "no-such-branch" in caught.value.why
    assert "\n" not in caught.value.why


def test_a_private_repository_is_shown_its_secret(
    host: GitHost, repository: Path, tree: Tree
) -> None:
    """A token alone, or with a user; nobody sees it in git's arguments or in what is told."""
    host.asks_for = "x-access-token:t0ken"
    with pytest.raises(BadCode, match="could not fetch") as caught:
        gather_git(host.url("code"), "main", tree, addresses=loopback)
    assert "secret = NAME" in caught.value.do
    with pytest.raises(BadCode) as caught:
        gather_git(host.url("code"), "main", tree, addresses=loopback, password="wr0ng")
    assert "wr0ng" not in str(caught.value)
    commit = gather_git(host.url("code"), "main", tree, addresses=loopback, password="t0ken")
    assert commit == git(repository, "rev-parse", "main")


def test_a_secret_of_git_goes_to_the_host_that_was_named(
    host: GitHost, repository: Path, tree: Tree
) -> None:
    """A redirect takes it nowhere."""
    host.asks_for = "me:t0ken"
    commit = gather_git(host.url("code"), "", tree, addresses=loopback, password="me:t0ken")
    assert commit == git(repository, "rev-parse", "HEAD")
    host.redirect_to = host.url("code")
    with pytest.raises(BadCode):
        gather_git(host.url("code"), "", tree, addresses=loopback, password="me:t0ken")


def test_a_secret_that_would_add_a_header_is_refused(host: GitHost, tree: Tree) -> None:
    """Line breaks end a header."""
    with pytest.raises(BadCode, match="no password"):
        gather_git(host.url("code"), "", tree, addresses=loopback, password="a\r\nX: b")
    assert not host.requests
