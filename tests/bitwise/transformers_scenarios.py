"""Small trainings by a Hugging Face `Trainer`, in processes that get killed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from onward import learning
from onward.trainers.transformers import OnwardCallback

from .scenarios import Kill, SampleLog, _executioner, final_state

ITEMS, TOKENS, VOCABULARY = 44, 8, 32
EPOCHS, BATCH = 3, 4
BATCHES = ITEMS // BATCH
CLOCK = ("_runtime", "_per_second")
"""How the trainer calls what it reads from the clock: no two runs have the same."""


@dataclass(frozen=True)
class Scenario:
    """One way of training; `arguments` go to `TrainingArguments`."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    patience: int = 0

    @property
    def steps(self) -> int:
        accumulate = self.arguments.get("gradient_accumulation_steps", 1)
        return int(self.arguments.get("max_steps", EPOCHS * -(-BATCHES // accumulate)))

    @property
    def evaluates(self) -> bool:
        return "eval_strategy" in self.arguments


EVALUATED = {"eval_strategy": "steps", "eval_steps": 4}
SCENARIOS = [
    Scenario("warm-up and cosine, dropout, evaluated", EVALUATED),
    Scenario(
        "accumulation over an epoch of odd length, bf16, label smoothing",
        {"gradient_accumulation_steps": 2, "bf16": True, "label_smoothing_factor": 0.1},
    ),
    Scenario(
        "evaluated and logged by epoch, plateau scheduler",
        {
            "eval_strategy": "epoch", "logging_strategy": "epoch",
            "lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss",
            "optim": "adafactor",
        },
    ),
    Scenario(
        "stopped early, best model loaded at the end",
        {
            **EVALUATED, "save_strategy": "steps", "save_steps": 4, "learning_rate": 0.1,
            "load_best_model_at_end": True, "metric_for_best_model": "loss",
        },
        patience=2,
    ),
    Scenario("max_steps within an epoch, sampler by length",
             {"max_steps": 27, "train_sampling_strategy": "group_by_length"}),
    Scenario("a stream", {"max_steps": 25}, stream=True),
]  # fmt: skip


class Tokens(Dataset[dict[str, Any]]):
    """Synthetic sentences; each is augmented by all three global random generators.

    Not those that are evaluated: the trainer's own loader would draw by workers, if there are any.
    """

    def __init__(self, count: int = ITEMS, *, seed: int = 7, augmented: bool = True) -> None:
        self.augmented = augmented
        generator = torch.Generator().manual_seed(seed)
        self.values = torch.randint(1, VOCABULARY, (count, TOKENS), generator=generator)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        value = self.values[index].clone()
        if self.augmented:
            value[random.randrange(TOKENS)] = 0
            value[np.random.randint(TOKENS)] = 0
            value[torch.randint(TOKENS, ())] = 0
        return {"input_ids": value, "labels": value, "index": index}


class Stream(IterableDataset[dict[str, Any]]):
    """The same sentences, one after the other."""

    def __init__(self, count: int = ITEMS) -> None:
        self.tokens = Tokens(count)

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        first, stride = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.tokens[i] for i in range(first, len(self.tokens), stride))


class LoggingTrainer(Trainer):
    """A user's own subclass, which notes what it learns from."""

    log_of_samples: SampleLog

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ids = inputs.pop("index")
        if model.training:
            self.log_of_samples.ids.extend(ids.tolist())
        return super().compute_loss(model, inputs, *args, **kwargs)


class Fate(TrainerCallback):
    """Where a process dies; what it draws is part of what must be the same."""

    def __init__(self, die: _executioner, terminate_at: int) -> None:
        self.die = die
        self.terminate_at = terminate_at

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        torch.rand(())
        self.die.reached("before-first-batch")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.die.reached("step-begin")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.die.reached("step")
        if state.global_step == self.terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.die.reached("evaluation")

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.die.reached("epoch-end")


def model() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=16, n_layer=1, n_head=2,
            resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def train(
    output: str,
    scenario: Scenario,
    *,
    workers: int = 0,
    kill: Kill | None = None,
    terminate_at: int = 0,
    items: int = ITEMS,
    memory: int = 0,
    options: dict[str, Any] | None = None,
) -> None:
    """One process's part of a training; ends by finishing or by its own SIGKILL."""
    gc.freeze()  # the trainer collects garbage, and need not look through all that is imported
    # Data workers shall fork from this process, not each start a Python of their own.
    multiprocessing.set_start_method("fork", force=True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = Path(f"{output}-trainer")  # the trainer remembers its best model by path
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    torch.set_num_threads(1)
    random.seed(3)
    np.random.seed(3)
    die = _executioner(kill or Kill())
    die.watch_file_operations()
    log = SampleLog()
    arguments: dict[str, Any] = {
        "output_dir": "trainer", "num_train_epochs": EPOCHS, "learning_rate": 1e-2,
        "per_device_train_batch_size": BATCH, "lr_scheduler_type": "cosine", "warmup_steps": 5,
        "logging_steps": 3, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "use_cpu": True, "remove_unused_columns": False, "dataloader_num_workers": workers,
        "seed": 11, "dataloader_pin_memory": False,
    }  # fmt: skip
    callbacks: list[Any] = [Fate(die, terminate_at)]
    if scenario.patience:
        callbacks.append(EarlyStoppingCallback(scenario.patience))
    if memory:
        options = {"strategy": learning.strategy("er", memory=memory), **(options or {})}
    callbacks.append(
        OnwardCallback(
            output,
            **{"samples": log, "save_every_steps": 3, "save_every_seconds": None} | (options or {}),
        )
    )
    trainer = LoggingTrainer(
        model=model(),
        args=TrainingArguments(**arguments | scenario.arguments),
        train_dataset=Stream(items) if scenario.stream else Tokens(items),
        eval_dataset=Tokens(8, seed=8, augmented=False),
        callbacks=callbacks,
    )
    trainer.log_of_samples = log
    trainer.train()


def processes() -> ForkServerContext:
    """Processes that have imported the trainer already: a kill costs milliseconds, not seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "onward.training.session", "onward.data.torch"])
    return context


def run_process(output: Path, scenario: Scenario, **options: Any) -> int:
    """One process to its end; its exit code, negative for a signal."""
    process = processes().Process(
        target=train, args=(str(output), scenario), kwargs=options, daemon=False
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def bits(output: Path) -> dict[str, Any]:
    """Every bit of the finished state, but for what the trainer read from the clock."""
    state = final_state(output)
    return {**state, "state": _timeless(state["state"])}


def _timeless(tree: Any) -> Any:
    match tree:
        case dict():
            return {
                key: _timeless(value) for key, value in tree.items() if not str(key).endswith(CLOCK)
            }
        case list():
            return [_timeless(value) for value in tree]
    return tree
