"""Becoming the user that jobs run as, for good."""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path

from onward.errors import JobError

_PR_SET_NO_NEW_PRIVS = 38


def user_of(name: str) -> pwd.struct_passwd:
    """Raises `JobError` for a user that this machine does not have."""
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise JobError(
            f"there is no user {name!r} on this machine", do="make it, or change --job-user"
        ) from error


def give_folder(folder: Path, user: pwd.struct_passwd) -> None:
    """The attempt's folder belongs to the job's user from here on, with all that is in it."""
    for above, names, files in os.walk(folder):
        for name in (".", *names, *files):
            os.chown(os.path.join(above, name), user.pw_uid, user.pw_gid, follow_symlinks=False)


def become(user: pwd.struct_passwd) -> None:
    """This process is that user's, cannot go back, and has neither its groups nor its rights."""
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)


def no_new_privileges() -> None:
    """Nothing that this process starts gains rights by a set-user-id program. On Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
