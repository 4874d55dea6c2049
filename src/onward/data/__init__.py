"""What a model learns from: folders, tables and other datasets, and what is known of their items.

    train = onward.data.Table("s3://bucket/clicks/*.parquet", key=["user", "time"])

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onward.data.content import identify
    from onward.data.folder import Folder
    from onward.data.items import Items
    from onward.data.snapshot import DataSnapshot
    from onward.data.sources import Source, open_source
    from onward.data.table import Table

__all__ = ["DataSnapshot", "Folder", "Items", "Source", "Table", "identify", "open_source"]

_HOMES = {
    "DataSnapshot": "onward.data.snapshot",
    "Folder": "onward.data.folder",
    "Items": "onward.data.items",
    "Source": "onward.data.sources",
    "Table": "onward.data.table",
    "identify": "onward.data.content",
    "open_source": "onward.data.sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onward.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
