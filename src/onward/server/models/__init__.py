"""Models: what the outputs of a team hold, as documents for the API and the console.

The log of each output is the truth; the tables are an index of it that can be made again. Nothing
here loads a tensor.
"""

from onward.server.models.catalog import add_model, all_savings, find_model, list_models
from onward.server.models.changing import Change, change
from onward.server.models.documents import (
    checkpoint_document,
    checkpoints_page,
    data_difference,
    data_document,
    data_seen,
    learning_document,
    learning_picture,
    look_for_damage,
    model_document,
    savings_document,
)
from onward.server.models.syncing import sync_model, sync_outputs

__all__ = [
    "Change",
    "add_model",
    "all_savings",
    "change",
    "checkpoint_document",
    "checkpoints_page",
    "data_difference",
    "data_document",
    "data_seen",
    "find_model",
    "learning_document",
    "learning_picture",
    "list_models",
    "look_for_damage",
    "model_document",
    "savings_document",
    "sync_model",
    "sync_outputs",
]
