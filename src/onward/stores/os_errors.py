"""Operating-system errors as Onward's own, each with what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from onward.errors import NoSpace, ReadOnly, StoreError, Unreachable

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# What network mounts say while their server is away. A disk's EIO is not among them: after it,
# nothing is known about what was written, and trying again would only hide that.
_UNREACHABLE = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
LINK_UNSUPPORTED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def written(what: str) -> Iterator[None]:
    """Translate an `OSError` of a write; `what` says which one, as in "could not write x"."""
    try:
        yield
    except OSError as error:
        raise _write_error(error, what) from error


@contextmanager
def looked_up(what: str) -> Iterator[None]:
    """Translate an `OSError` of a read; `what` says which one, as in "could not read x"."""
    try:
        yield
    except OSError as error:
        raise _read_error(error, what) from error


def _write_error(error: OSError, what: str) -> StoreError:
    why = _reason(error)
    if error.errno in _NO_SPACE:
        return NoSpace(what, why=why, do="free some space or choose another output, then try again")
    if error.errno in _READ_ONLY:
        return ReadOnly(what, why=why, do="choose an output that you may write to")
    return _read_error(error, what)


def _read_error(error: OSError, what: str) -> StoreError:
    why = _reason(error)
    if error.errno in _UNREACHABLE:
        return Unreachable(what, why=why, do="see that the file system is mounted, then try again")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(what, why=why, do="give this user the right to read it")
    if error.errno == errno.EIO:
        return StoreError(what, why=why, do="the disk reports errors: check it before going on")
    return StoreError(what, why=why)


def _reason(error: OSError) -> str:
    if error.errno is None:
        return str(error)
    return f"{os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})"
