"""The metrics of a Lightning trainer in the midst of an epoch: sums so far, and the last values.

Lightning's own checkpoints have none of them. But a scheduler, an `EarlyStopping` or a
`ModelCheckpoint` that looks at an epoch's mean, or at a value logged before the interruption, would
decide otherwise in a run that was resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultMetric,
    _Sync,
)
from torchmetrics import Metric

_META = (
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph",
    "add_dataloader_idx", "dataloader_idx", "metric_attribute",
)  # fmt: skip


def capture(trainer: Any) -> dict[str, Any]:
    """What is logged so far, and the state of every `torchmetrics.Metric` in the module."""
    connector = trainer._logger_connector
    return {
        "callback": dict(connector._callback_metrics),
        "logged": dict(connector._logged_metrics),
        "bar": dict(connector._progress_bar_metrics),
        "first_batch": connector._first_loop_iter,
        "hook": connector._current_fx,
        "results": {key: _captured(m) for key, m in trainer.fit_loop.epoch_loop._results.items()},
        "of_module": {
            name: {
                "states": {state: getattr(metric, state) for state in metric._defaults},
                "updates": metric._update_count,
                "last": metric._forward_cache,
            }
            for name, metric in _metrics_of(trainer.lightning_module).items()
        },
    }


def unshared(value: Any) -> Any:
    """`value` with a copy of each single number that is a tensor.

    One that was just logged is in many places at once; restored, it is not, and the next
    checkpoint would tell the two apart.
    """
    match value:
        case torch.Tensor() if value.numel() == 1:
            return value.detach().clone()
        case dict():
            return {key: unshared(child) for key, child in value.items()}
        case list():
            return [unshared(child) for child in value]
    return value


def restore(trainer: Any, state: Mapping[str, Any]) -> None:
    """Sets all of it; a metric that the module no longer has is passed over."""
    connector, module = trainer._logger_connector, trainer.lightning_module
    device = trainer.strategy.root_device
    connector._callback_metrics = _on(state["callback"], device)
    connector._logged_metrics = _on(state["logged"], device)
    connector._progress_bar_metrics = _on(state["bar"], device)
    connector._first_loop_iter = state["first_batch"]
    connector._current_fx = state["hook"]
    metrics = _metrics_of(module)
    for name, saved in state["of_module"].items():
        if name in metrics:
            metric = metrics[name]
            for key, value in _on(saved["states"], metric.device).items():
                setattr(metric, key, value)
            metric._update_count = saved["updates"]
            metric._forward_cache = _on(saved["last"], metric.device)
            metric._computed = None
    results = trainer.fit_loop.epoch_loop._results
    results.clear()
    for key, saved in state["results"].items():
        value = saved["value"]
        if not saved["is_tensor"]:
            value = metrics.get(saved["meta"]["metric_attribute"])
            if value is None:
                continue
        results[key] = _restored(saved, value, trainer).to(device)


def _captured(metric: Any) -> dict[str, Any]:
    meta = metric.meta
    plain = metric.is_tensor
    return {
        "meta": {name: getattr(meta, name) for name in _META},
        # A builtin and torch's function of this name are told apart when a value is logged again.
        "reduce": meta.reduce_fx.__name__,
        "builtin": meta.reduce_fx in (sum, max, min),
        "sync": meta.sync.should,
        "rank_zero_only": meta.sync.rank_zero_only,
        "is_tensor": plain,
        "has_reset": metric.has_reset,
        "value": metric.value if plain else None,
        "size": metric.cumulated_batch_size if plain and meta.is_mean_reduction else None,
        "last": metric._forward_cache,
        "updates": metric._update_count,
    }


def _restored(saved: Mapping[str, Any], value: Any, trainer: Any) -> Any:
    builtin = {"sum": sum, "max": max, "min": min}
    reduce: Any = builtin[saved["reduce"]] if saved["builtin"] else getattr(torch, saved["reduce"])
    meta = _Metadata(**saved["meta"], reduce_fx=reduce)
    meta.sync = _Sync(
        _should=saved["sync"],
        fn=trainer.strategy.reduce,
        rank_zero_only=saved["rank_zero_only"],
    )
    metric = _ResultMetric(meta, saved["is_tensor"])
    metric.value = value
    if saved["size"] is not None:
        metric.cumulated_batch_size = saved["size"]
    metric.has_reset = saved["has_reset"]
    metric._forward_cache = saved["last"]
    metric._update_count = saved["updates"]
    return metric


def _metrics_of(module: Any) -> dict[str, Any]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


def _on(value: Any, device: Any) -> Any:
    match value:
        case torch.Tensor():
            return value.to(device)
        case dict():
            return {key: _on(child, device) for key, child in value.items()}
        case list():
            return [_on(child, device) for child in value]
    return value
