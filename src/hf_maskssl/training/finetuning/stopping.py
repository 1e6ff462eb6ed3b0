"""SIGTERM and Ctrl-C in fine-tuning: the run is saved where it stands, and the same call goes on from there."""

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import DataLoaderAdapter
from accelerate.utils import reduce
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...files import JsonObject, write_json
from ...models.head_losses import IGNORED
from ..pretraining.checkpoints import find_damage, write_manifest
from ..pretraining.signals import PatientWorkers, StopSignals
from .mixing import Mixing

if TYPE_CHECKING:
    from .results import Run

STOPPED_FILE = "stopped.json"
# Steps after which processes on GPUs agree on whether to stop: agreeing makes the CPU wait for the device.
AGREEMENT_STEPS = 10

logger = logging.getLogger(__name__)


class RunStopped(Exception):
    """SIGTERM or Ctrl-C ended fine-tuning; what there is to go on with is saved."""


class StoppableTrainer(Trainer):
    """A Trainer whose data workers live on when a signal to the whole process group asks the run to save and stop.

    Attributes:
        patience: Behaviour of the workers at a signal; `end` is called when the run is over.
        mixing: How batches of training are mixed; None leaves them.
        scored_labels: Function that says of labels which ones the loss is a mean of, bool of their shape; None where they are
            those that Trainer counts itself, all but -100.
    """

    patience: PatientWorkers
    mixing: Mixing | None = None
    scored_labels: Callable[[torch.Tensor], torch.Tensor] | None = None
    _mixed: tuple[int, int] = (-1, 0)  # the step of the last batch, and its number within the step

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Trainer's step, on a mixed batch; the draws depend on the seed, the step, the batch in it and the process."""
        if self.mixing is not None:
            step, number = (
                self.state.global_step,
                self._mixed[1] + 1 if self._mixed[0] == self.state.global_step else 0,
            )
            self._mixed = (step, number)
            inputs = self.mixing(inputs, [self.args.seed, step, number, self.args.process_index])
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor | int | None:
        """The number of labels that the loss is a mean of, over all accumulated batches and processes."""
        if self.scored_labels is not None:
            # In the form in which Trainer counts.
            batch_samples = [
                {"labels": torch.where(self.scored_labels(batch["labels"]), 0, IGNORED)} for batch in batch_samples
            ]
        return super()._get_num_items_in_batch(batch_samples, device)

    def get_train_dataloader(self) -> DataLoader:
        return self._patient(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        return self._patient(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        return self._patient(super().get_test_dataloader(test_dataset))

    def _patient(self, loader: DataLoader) -> DataLoader:
        base = loader.base_dataloader if isinstance(loader, DataLoaderAdapter) else loader
        if base.num_workers:
            base.worker_init_fn = partial(_begin_worker, self.patience, base.worker_init_fn)
        return loader


def _begin_worker(patience: PatientWorkers, seed: Callable[[int], None] | None, worker: int) -> None:
    patience(worker)
    if seed is not None:
        seed(worker)


class Stopper(TrainerCallback):
    """Saves a run and ends it by `RunStopped` after a step in which a signal came to one of its processes.

    A step after which the validation split is scored, or an epoch ends, is no place to go on from: the step after it is.

    Args:
        trainer: Trainer of the run.
        run: The run.
        signals: Signals that have been received.
        earlier_loss: Sum of the training losses of the steps before an earlier stop.
        started: Reading of `time.perf_counter` at which the run would have begun without an earlier stop.
    """

    def __init__(
        self, trainer: Trainer, run: "Run", signals: StopSignals, earlier_loss: float, started: float
    ) -> None:
        self.trainer, self.run, self.signals, self.earlier_loss = trainer, run, signals, earlier_loss
        self.started = started
        self.is_stopping = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        is_cheap = args.world_size == 1 or args.device.type == "cpu"
        if not is_cheap and state.global_step % AGREEMENT_STEPS:
            return
        is_end = float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps
        if self._is_asked(args) and not control.should_evaluate and not is_end:
            self.is_stopping = control.should_save = control.should_log = True
            args.save_only_model = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        if not self.is_stopping:
            return
        self.trainer.accelerator.wait_for_everyone()
        folder = Path(str(args.output_dir))
        if state.is_world_process_zero:
            checkpoint = folder / f"checkpoint-{state.global_step}"
            write_manifest(checkpoint)
            stopped: JsonObject = {"run": self.run.name, "checkpoint": str(checkpoint), "step": state.global_step}
            stopped["seconds"] = time.perf_counter() - self.started
            write_json(folder / STOPPED_FILE, stopped | {"loss": self.earlier_loss + self.trainer._total_loss_scalar})
        self.trainer.accelerator.wait_for_everyone()
        reason = self.signals.received or "SIGTERM, SIGUSR1 or Ctrl-C in another process"
        raise RunStopped(
            f"{reason}: {self.run.title}, stopped and saved at step {state.global_step}; the same command continues."
        )

    def _is_asked(self, args: TrainingArguments) -> bool:
        is_asked = self.signals.received is not None
        if args.world_size == 1:
            return is_asked
        return bool(reduce(torch.tensor(float(is_asked), device=args.device)).item() > 0)


def read_stopped(folder: Path, run: "Run") -> JsonObject | None:
    """Where a run was stopped: {"checkpoint", "step", "loss": sum of the training losses so far, "seconds"}; None where it
    was not.

    Args:
        folder: Trainer's.
        run: The run that is to be trained.
    """
    path = folder / STOPPED_FILE
    if not path.is_file():
        return None
    stopped: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    # Trainer's state names its best model with the folder as it was.
    if stopped["run"] != run.name or Path(stopped["checkpoint"]).parent != folder:
        return None
    problem = find_damage(Path(stopped["checkpoint"]))
    if problem is not None:
        logger.warning("%s: %s. The run starts anew.", stopped["checkpoint"], problem)
        return None
    logger.info("%s: goes on from step %d", run.title, stopped["step"])
    return stopped
