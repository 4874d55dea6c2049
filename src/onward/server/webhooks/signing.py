"""Signatures as Standard Webhooks (standardwebhooks.com) has them, so that receivers need no code
of ours."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_PREFIX = "whsec_"


def signed_headers(secret: str, message: str, body: bytes, *, at: int) -> dict[str, str]:
    """The three headers of a message: its id, the seconds since 1970, and the signature of both
    and the body.

    A secret that begins with `whsec_` is base64 of its bytes; another is its own bytes.
    """
    signature = hmac.new(key_of(secret), f"{message}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(signature.digest()).decode(),
    }


def key_of(secret: str) -> bytes:
    """The bytes that sign."""
    text = secret.strip()
    if text.startswith(_PREFIX):
        try:
            return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass  # it only looks like one
    return text.encode()
