"""Archives for tests, honest and hostile."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from typing import Any


def tar(*members: tuple[str, bytes | str | None], mode: str = "w:gz", **facts: Any) -> io.BytesIO:
    """A tar of files (bytes), links (text: where to) and folders (None)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            for fact, value in facts.items():
                setattr(info, fact, value)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out


def zipped(*members: tuple[str, bytes | str]) -> io.BytesIO:
    """A zip of files (bytes) and links (text: where to)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            kind = stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content)
    return out
