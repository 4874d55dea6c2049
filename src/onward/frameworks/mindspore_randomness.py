"""The random generators of a MindSpore program: Python's, NumPy's, MindSpore's own tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import mindspore as ms
import mindspore.dataset as ds

from onward.frameworks import randomness
from onward.frameworks.mindspore_tensors import freeze, thaw

# Functions such as `ops.dropout` and `ops.standard_normal` draw with two seeds: the global one, and
# one that this table counts up at each call. `mindspore.common.seed` the attribute is a function.
_seeds: Any = sys.modules["mindspore.common.seed"]


def capture_randomness() -> dict[str, Any]:
    """The state of every global random generator: Python's, NumPy's, MindSpore's."""
    return {
        **randomness.capture(),
        "mindspore": {
            "seed": ms.get_seed(),
            "calls": [[name, seed, value] for (name, seed), value in _seeds._KERNEL_SEED.items()],
            "generator": freeze(ms.get_rng_state().asnumpy(), "randomness.mindspore"),
            "dataset_seed": ds.config.get_seed(),
        },
    }


def restore_randomness(tree: Mapping[str, Any]) -> None:
    """Sets every global random generator as captured."""
    own = tree["mindspore"]
    ds.config.set_seed(own["dataset_seed"])  # first: it seeds Python and NumPy as well
    randomness.restore(tree)
    # Not set_seed: that seeds NumPy as well, and sets the table back.
    _seeds._GLOBAL_SEED = own["seed"]
    _seeds._KERNEL_SEED.clear()
    _seeds._KERNEL_SEED.update({(name, seed): value for name, seed, value in own["calls"]})
    ms.set_rng_state(ms.Tensor(thaw(own["generator"])))
