"""What an object store's client says, as Onward's own errors, with no credentials in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from onward.errors import (
    AlreadyExists,
    Missing,
    NoSpace,
    ReadOnly,
    StoreError,
    Unreachable,
    UnsafeStore,
)

Verb: TypeAlias = Literal["create", "put", "read", "size", "list", "delete"]

_STATUS = re.compile(r"\b(?:status code|error response): (\d{3})\b|\bstatus: (\d{3})\b")
_CODE = re.compile(r"<Code>([^<]*)</Code>", re.IGNORECASE)
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>", re.IGNORECASE)
_CAUSE = re.compile(r"(?:message|error): \"((?:[^\"\\]|\\.)*)\"|(TimedOut|timed out)")
_QUERY = re.compile(r"\?[^\s\"'<>)]*")
_METADATA_SERVICE = re.compile(r"/latest/(?:api|meta-data)|/computeMetadata/|/metadata/identity")
_LONGEST_REASON = 300

_WORDS: dict[Verb, str] = {"put": "store", "size": "look up"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "InsufficientQuota"}
# Two conditional requests met; neither of them says whether the object exists.
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
_BAD_KEYS = {
    "AuthFailure",
    "AuthenticationFailed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}


def translated(
    error: Exception, verb: Verb, place: str, *, bucket: str = "", secrets: Sequence[str] = ()
) -> StoreError:
    """The error to raise instead of `error`, which came of `verb` on the object at `place`.

    Known by its class's name, so that no client library needs to be imported to understand it.
    """
    text = str(error)
    kind = type(error).__name__
    status, code = status_of(error), _found(_CODE, text)
    what = f"could not {_WORDS.get(verb, verb)} {place}"
    why = _reason(text, status, code, secrets)

    if kind in ("FileNotFoundError", "NotFoundError") or status == 404:
        if code in _NO_BUCKET or (not code and verb in ("create", "put", "list")):
            do = f"create the bucket {bucket!r}, or correct its name, endpoint or region"
            return StoreError(what, why=f"there is no such bucket ({why})", do=do)
        if verb in ("read", "size", "delete"):
            return Missing(f"nothing is stored at {place}")
    if code in _FULL or status == 507:
        return NoSpace(what, why=why, do="free some space or raise the quota, then try again")
    taken = kind in ("AlreadyExistsError", "PreconditionError") and code not in _CONFLICT
    if taken and verb == "create":
        return AlreadyExists(f"{place} exists already")
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403):
        return _refused(verb, what, why, code)
    if kind == "NotSupportedError" or status == 501:
        if verb == "create":
            why = f"the store cannot create only what is absent ({why})"
            return UnsafeStore(what, why=why, do="promise a single writer, or use another store")
        return StoreError(what, why=why)
    if _METADATA_SERVICE.search(text):
        why = "there are no credentials in the environment, and this machine provides none"
        return StoreError(what, why=why, do="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if status is not None and status < 500 and status not in (408, 409, 425, 429):
        return StoreError(what, why=why, do="check the endpoint and region")
    if kind in ("InvalidPathError", "UnknownConfigurationKeyError", "ValueError"):
        return StoreError(what, why=why)
    return Unreachable(what, why=why, do="check the endpoint and the network, then try again")


def status_of(error: Exception) -> int | None:
    """The HTTP status that the store answered with, if it did answer."""
    match = _STATUS.search(str(error))
    return int(match.group(1) or match.group(2)) if match else None


def _refused(verb: Verb, what: str, why: str, code: str) -> StoreError:
    if code in _BAD_KEYS:
        do = "check the credentials in the environment, and this machine's clock"
        return StoreError(what, why=f"the store refuses the credentials ({why})", do=do)
    if verb in ("create", "put", "delete"):
        do = "use credentials that may write there"
        return ReadOnly(what, why=f"the store refuses writes with these credentials ({why})", do=do)
    do = "check the credentials in the environment, and their right to read and list"
    return StoreError(what, why=f"the store refuses these credentials ({why})", do=do)


def _reason(text: str, status: int | None, code: str, secrets: Sequence[str]) -> str:
    headline, _, details = text.partition("\n\nDebug source:")
    if code:
        reason = f"{code}: {_found(_MESSAGE, text)}"
    elif status is not None:
        reason = f"HTTP status {status}"
    else:
        causes = [first or second for first, second in _CAUSE.findall(details)]
        reason = " - ".join([_QUERY.sub("", " ".join(headline.split())), *causes[-1:]])
    for secret in secrets:
        if secret:
            reason = reason.replace(secret, "***")
    return reason[:_LONGEST_REASON]


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1).strip() if match else ""
