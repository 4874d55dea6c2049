"""Code of jobs, pinned when they are submitted: what ran can be read, and run again, years later.

Every tree of files is stored once, under the digest of its paths, modes and bytes.
"""

from onward.server.code.limits import Limits
from onward.server.code.pinning import Pinned, checked_tree, find_code, pin_archive, pin_code

__all__ = ["Limits", "Pinned", "checked_tree", "find_code", "pin_archive", "pin_code"]
