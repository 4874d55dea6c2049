"""MindSpore: a callback that keeps what `Model.train` trains in an output.

    model = ms.Model(network, loss_fn, optimizer)
    keep = OnwardCallback("out", model)
    model.train(3, keep.loader(dataset, batch_size=32), callbacks=[LossMonitor(), keep],
                initial_epoch=keep.initial_epoch)

`Model.train` keeps its loop and its words. Onward restores before it begins, gives it the batches,
counts its steps, saves and finishes. It depends on no checkpoint file of MindSpore's.
"""

from __future__ import annotations

import os
from typing import Any

import mindspore as ms
from mindspore import Parameter, nn
from mindspore.train import Callback, Model

from onward.data.mindspore_loader import ForModelTrain
from onward.errors import OnwardError, UsageError
from onward.learning.gate import Verdict
from onward.training.run import Run
from onward.training.session import open as open_run

__all__ = ["OnwardCallback"]

_OWN = ("network", "optimizer", "loss_scale", "loss_scale_update")


class OnwardCallback(Callback):  # type: ignore[misc]
    """Resumes, continues and saves what `model` trains.

    `url` is the output, by default that of `onward run`. The output is opened, and network,
    optimizer and loss scale restored, when the callback is made. All other options are those of
    `onward.open`; further objects with state may be among them.

    The epochs that `Model.train` (or `Model.fit`) is told are this increment's own. It must be
    given batches by `loader` or `batches`, and `initial_epoch=callback.initial_epoch`, which is not
    zero after an interruption. `dataset_sink_mode` must stay off: in it, batches are taken where
    Onward cannot count them. Put it last among the callbacks: what those after it draw or change
    at an epoch's end comes after the save.

    Raises `UsageError` for what would not resume exactly; `Stopped` once all is saved after
    SIGTERM; and what `onward.open` raises.
    """

    def __init__(self, url: str | os.PathLike[str] | None, model: Model, **options: Any) -> None:
        super().__init__()
        for name in _OWN:
            if name in options:
                raise UsageError(
                    f"{name}= is the model's own", do="leave it out: the callback finds it"
                )
        self.run: Run = open_run(url, **_parts_of(model), **options)
        """The run of this training."""
        self.verdict: Verdict | None = None
        """What the gate said of the finished increment, if holdouts were scored."""
        self._first_epoch = 0
        self._planned: int | None = None

    @property
    def initial_epoch(self) -> int:
        """The epoch of this increment, from 0, that training goes on with."""
        return self.run.epoch

    def loader(self, dataset: Any, *, batch_size: int = 1, **options: Any) -> Any:
        """What is new in `dataset`, with old samples mixed in: `Run.loader`."""
        return self.run.loader(dataset, batch_size=batch_size, **options)

    def batches(self, dataset: Any) -> Any:
        """The batches of a pipeline of `mindspore.dataset`: `Run.batches`."""
        return self.run.batches(dataset)

    def plan(self, budget: int | float | str, **options: Any) -> int:
        """Plans this increment (`Run.plan`); returns the epochs that `Model.train` is to be told.

        The last of them may end early. Call it after `loader`.
        """
        plan = self.run.plan(budget, **options)
        if plan.epochs is None:
            raise UsageError(
                f"Model.train counts epochs, and {budget!r} has no number of them",
                do="plan epochs, steps or a share of a retrain",
            )
        self._planned = plan.epochs
        return plan.epochs

    # What Model.train calls.

    def on_train_begin(self, run_context: Any) -> None:
        parameters = run_context.original_args()
        dataset = parameters.train_dataset
        if not isinstance(dataset, ForModelTrain):
            raise UsageError(
                f"Model.train was given a {type(dataset).__name__} that Onward does not know",
                why="nobody could tell which of its batches were learned",
                do="give it callback.batches(dataset), or callback.loader(dataset, batch_size=…)",
            )
        if parameters.get("dataset_sink_mode"):
            raise UsageError(
                "Model.train takes its batches in sink mode",
                why="they go to the device where Onward cannot count them",
                do="train with dataset_sink_mode=False",
            )
        self._first_epoch = self.run.epoch
        parameters.cur_step_num = self.run.increment_step
        if parameters.get("net_outputs") is None:
            parameters.net_outputs = ms.Tensor(0.0, ms.float32)  # where no batch is left to train

    def on_train_epoch_begin(self, run_context: Any) -> None:
        epoch = run_context.original_args().cur_epoch_num - 1
        if epoch != self.run.epoch:
            raise UsageError(
                f"Model.train begins with epoch {epoch}, and the checkpoint was taken in epoch "
                f"{self.run.epoch}",
                do="pass initial_epoch=callback.initial_epoch to Model.train",
            )
        self.run.enter_epoch(epoch)

    def on_train_step_end(self, run_context: Any) -> None:
        outputs = run_context.original_args().net_outputs
        loss = outputs[0] if isinstance(outputs, tuple | list) else outputs
        single = isinstance(loss, ms.Tensor) and loss.size == 1
        self.run.step(**({"loss": loss} if single else {}))

    def on_train_epoch_end(self, run_context: Any) -> None:
        parameters = run_context.original_args()
        results = parameters.get("eval_results")
        if results:
            self.run.log(**{str(name): value for name, value in results.items()})
        last = parameters.cur_epoch_num == self._first_epoch + parameters.epoch_num
        self.run.leave_epoch(last=last or run_context.get_stop_requested())

    def on_train_end(self, run_context: Any) -> None:
        self.verdict = self.run.finish()

    def __exit__(self, *error: Any) -> None:
        if error and error[0] is not None:
            try:
                self.run.close()
            except OnwardError as second:
                print(f"onward: {second}", flush=True)  # the first error is the one to raise


def _parts_of(model: Any) -> dict[str, Any]:
    """The network, the optimizer and what scales the loss."""
    if not isinstance(model, Model):
        raise UsageError(
            f"OnwardCallback was given a {type(model).__name__}",
            do='pass the model that trains: OnwardCallback("out", model)',
        )
    network, optimizer, whole = model._network, model._optimizer, model.train_network
    if optimizer is None:
        raise UsageError(
            "the model has no optimizer",
            why="its network trains itself, and Onward cannot tell its parts",
            do="write the loop yourself, with onward.open(url, network=…, optimizer=…)",
        )
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer}
    if isinstance(scale := getattr(whole, "scale_sense", None), Parameter):
        parts["loss_scale"] = scale
    if isinstance(update := getattr(whole, "loss_scaling_manager", None), nn.Cell):
        parts["loss_scale_update"] = update
    return parts
