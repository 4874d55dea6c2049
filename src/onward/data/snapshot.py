"""A snapshot of a data location: what it holds, item by item and in one digest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3

from onward.data.files import LocalFile, local_files
from onward.data.items import DIGEST_BYTES, Items
from onward.data.listing import Listing, cache_folder


@dataclass(frozen=True, slots=True)
class DataSnapshot:
    """What a data location held at one moment. Equal digests mean equal data, wherever it lies.

    `identified` and `names` (keys, or else places) are in the order of the dataset. `names` may be
    read from the data when they are asked for. `sizes`, in bytes, are there where items are files.
    """

    items: int
    size_bytes: int
    digest: str
    identified: Items = field(compare=False, repr=False)
    names: Sequence[str] = field(compare=False, repr=False)
    sizes: Sequence[int] = field(default=(), compare=False, repr=False)


def snapshot_folder(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    remember: bool = True,
) -> DataSnapshot:
    """The snapshot of a folder with everything below it, or of a single file.

    The digest is BLAKE3, in hexadecimal, over the path, size and content digest of every file in
    order of their paths. Files that have not changed since the last snapshot are not read again;
    what is needed for that is kept in `cache`, by default the user's cache folder; with
    `remember=False` nothing is written. Raises
    `DataError` where something cannot be read or links lead in a circle, and `DataChanged` where a
    file changes while it is read.
    """
    root = Path(os.path.abspath(path))
    listing = Listing(cache_folder(cache, "files", os.path.realpath(root)))
    return snapshot_files(local_files(root), listing, remember=remember)


def unread_bytes(path: str | os.PathLike[str]) -> int:
    """About how much `snapshot_folder` has to read. Raises `DataError`."""
    root = Path(os.path.abspath(path))
    listing = Listing(cache_folder(None, "files", os.path.realpath(root)))
    return listing.unread_bytes(local_files(root))


def snapshot_files(
    files: Sequence[LocalFile],
    listing: Listing,
    labels: Sequence[str] | None = None,
    *,
    remember: bool = True,
) -> DataSnapshot:
    """The snapshot of these files, each an item whose key is its name.

    With `labels`, one for each file, a file's content includes its label.
    """
    whole = blake3()
    contents = bytearray()
    sizes = []
    for index, file in enumerate(files):
        stamp, digest = listing.digest(file)
        sizes.append(stamp.size_bytes)
        name = os.fsencode(file.name)
        # Lengths first, so that no name can be mistaken for a size or a digest.
        whole.update(b"%d:%s:%d:%s\n" % (len(name), name, stamp.size_bytes, digest))
        if labels is not None:
            label = labels[index].encode("utf-8", "surrogatepass")
            digest = blake3(digest + label).digest()
        contents += digest[:DIGEST_BYTES]
    if remember:
        listing.save()
    digests = np.frombuffer(bytes(contents), np.uint8).reshape(len(files), DIGEST_BYTES)
    names = [file.name for file in files]
    identified = Items.keyed(names, digests)
    return DataSnapshot(len(files), sum(sizes), whole.hexdigest(), identified, names, sizes)
