"""Bytes under keys: folders, object stores and memory behind one promise."""

from onward.stores.base import Chunk, Entry, Store, checked_key
from onward.stores.direct import Holds, ReadsInto, holding, read_into
from onward.stores.fault import Died, Fault, FaultPlan, Faulty, dies
from onward.stores.filesystem import FileSystem, RealFileSystem
from onward.stores.local import LocalStore
from onward.stores.memory import MemoryStore
from onward.stores.objects import ObjectStore
from onward.stores.opening import open_store
from onward.stores.probe import honours_create
from onward.stores.retry import Retrying
from onward.stores.urls import Location, display, is_local, join, parse

__all__ = [
    "Chunk",
    "Died",
    "Entry",
    "Fault",
    "FaultPlan",
    "Faulty",
    "FileSystem",
    "Holds",
    "LocalStore",
    "Location",
    "MemoryStore",
    "ObjectStore",
    "ReadsInto",
    "RealFileSystem",
    "Retrying",
    "Store",
    "checked_key",
    "dies",
    "display",
    "holding",
    "honours_create",
    "is_local",
    "join",
    "open_store",
    "parse",
    "read_into",
]
