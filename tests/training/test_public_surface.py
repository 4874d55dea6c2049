"""What `import onward` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import onward


def test_public_names_are_these() -> None:
    """Adding or removing a public name is a decision, made here too."""
    assert onward.__all__ == [
        "NothingNew", "OnwardError", "Run", "Stopped", "__version__", "names", "open",
    ]  # fmt: skip
    assert dir(onward) == sorted(onward.__all__)
    for name in onward.__all__:
        assert getattr(onward, name) is not None


def test_import_loads_no_framework() -> None:
    """`import onward` loads neither torch nor anything else that is heavy."""
    code = "import onward, sys; print(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "numpy", "obstore", "rich", "click", "msgspec", "mindspore"}
    assert heavy & set(loaded.stdout.split()) == set()
