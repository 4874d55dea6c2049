"""What Onward writes inside an output: a numbered log, manifests, packs (docs/format.md)."""

from onward.repository.auditing import record_audit
from onward.repository.history import History
from onward.repository.manifest import Manifest, Tensor, manifest_key
from onward.repository.packs import pack_key
from onward.repository.reading import description, read_state
from onward.repository.records import Audit, Commit, FrozenHoldout, Scores, record_key
from onward.repository.repository import Repository, exists, open_or_create, open_repository
from onward.repository.verifying import Findings, leftovers, verify
from onward.repository.writer import Draft, Facts, Writer

__all__ = [
    "Audit",
    "Commit",
    "Draft",
    "Facts",
    "Findings",
    "FrozenHoldout",
    "History",
    "Manifest",
    "Repository",
    "Scores",
    "Tensor",
    "Writer",
    "description",
    "exists",
    "leftovers",
    "manifest_key",
    "open_or_create",
    "open_repository",
    "pack_key",
    "read_state",
    "record_audit",
    "record_key",
    "verify",
]
