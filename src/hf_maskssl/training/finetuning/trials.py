"""One run of fine-tuning: a seed with a learning rate, through transformers' Trainer."""

import copy
import dataclasses
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.integrations import TensorBoardCallback

from ...data.arguments import DENSE_TASKS
from ...data.tables.rows import TransformedRows
from ...data.tables.windows import pooled_owners
from ...evaluation.metrics import LOWER_IS_BETTER
from ...files import JsonObject, incomplete_folder, replace_folder, write_json
from ...models.head_losses import scored_values
from ...terminal import errors_alone
from ..cost import EnergyMeter, device_name
from ..pretraining.signals import PatientWorkers, StopSignals
from .adapters import add_adapter, is_adapter, load_adapter, merged, parameter_counts, save_adapter
from .console import RunLine
from .layer_decay import layer_decay_groups
from .models import freeze, load_model, to_original_unit
from .predictions import gather_maps, gather_predictions, map_rows, predictions_path
from .results import Run
from .scores import (
    PREDICTIONS,
    FinetuningCollator,
    FinetuningRows,
    LabelUnit,
    MapScorer,
    Scorer,
    head_outputs,
    make_scorer,
    metric_scores,
    rows_of,
)
from .setup import FinetuningSetup, launched_precision
from .stopping import StoppableTrainer, Stopper, read_stopped
from .windows import pooled_outputs

SCRATCH = "trainer"  # folder of the output_dir: Trainer's own, gone when a run has ended

logger = logging.getLogger(__name__)


class EpochTeller(TrainerCallback):
    """A callback that gives the training rows the epoch and the run: with several processes the loader does not."""

    def __init__(self, rows: FinetuningRows | None) -> None:
        self.rows = rows

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if isinstance(self.rows, TransformedRows):
            self.rows.set_epoch(int(state.epoch or 0), args.seed)  # whole, but where a run goes on within an epoch


class Trials:
    """Training and scoring of a recipe's single runs.

    Args:
        setup: Setup that all runs share.
        scores_test: Whether runs are scored on the test split and their predictions kept, or on validation alone.

    Attributes:
        energy: Meter of the energy of all runs, a context.
    """

    def __init__(self, setup: FinetuningSetup, scores_test: bool = True) -> None:
        self.setup, self.scores_test = setup, scores_test
        self.args, self.state, self.folder = setup.args, setup.state, setup.folder
        self.config, self.data = setup.config, setup.data
        self.task, self.metric = setup.task, setup.metric
        self.energy = EnergyMeter(setup.state.is_main_process)

    def train(self, run: Run, keep: bool = False) -> JsonObject:
        """Train one seed with one learning rate; its record is stored, and its model where needed or asked for (`keep`)."""
        started, energy = time.perf_counter(), self.energy.kilowatt_hours()
        rows = self.setup.training_rows(run.seed)
        unit = self.setup.label_unit(rows)
        stopped = self.setup.broadcast(read_stopped(self._scratch(), run) if self.state.is_main_process else None)
        if stopped is None:
            self.remove_scratch()
        else:
            started, energy = started - stopped.get("seconds", 0.0), None  # a part of the energy is not known
        set_seed(run.seed)
        model = self.new_model()
        counts = parameter_counts(model)
        trainer = self.trainer(model, run, unit, rows)
        training_loss = self._fit(trainer, run, stopped, started)
        validation, place = self._chosen_scores(trainer)
        several_rates = len(self.args.learning_rates) > 1
        record: JsonObject = {
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            **place,
            "validation": validation,
            "test": None,
            "device": device_name(self.state.device),
            "history": self._history(trainer),
            "parameters": counts,
            "steps": trainer.state.global_step,
            "training_loss": training_loss,
        }
        try:
            if not self.scores_test:
                pass
            elif self.data.test is None:
                self._score(trainer, run, unit)  # for the pictures; the scores are those of validation
            elif not several_rates:
                record["test"] = self._score(trainer, run, unit)
        finally:  # what was learnt and measured is kept where scoring fails, too
            record["seconds"] = round(time.perf_counter() - started, 1)
            if energy is not None and (measured := self.energy.kilowatt_hours()) is not None:
                record["energy_kwh"] = measured - energy
            if self.state.is_main_process:
                if keep or self.args.save_model or several_rates:
                    self._save(trainer, run, unit)
                write_json(run.record_path(self.folder), record)
        finish_wandb(trainer)
        self.remove_scratch()
        return record

    def _fit(self, trainer: StoppableTrainer, run: Run, stopped: JsonObject | None, started: float) -> float:
        """Train to the end, or from where SIGTERM or Ctrl-C stopped the run; gives the mean training loss of all steps."""
        before: JsonObject = {"step": 0, "loss": 0.0, "checkpoint": None} if stopped is None else stopped
        with StopSignals() as signals:
            line = RunLine(run, self.metric, self.args.json_log)
            trainer.add_callback(line)
            trainer.add_callback(Stopper(trainer, run, signals, before["loss"], started))
            try:
                # Two checkpoints within a second are no sign of a bad file system.
                with errors_alone("transformers.trainer_utils"):
                    output = trainer.train(resume_from_checkpoint=before["checkpoint"])
            finally:
                line.close()
                trainer.patience.end()
        if stopped is None:
            return output.training_loss
        since = output.global_step - before["step"]
        return (before["loss"] + output.training_loss * since) / output.global_step

    def new_model(self) -> torch.nn.Module:
        """The checkpoint with a new head, or random weights; with adapters where the recipe asks for them."""
        is_pretrained = self.setup.checkpoint is not None and not self.args.from_scratch
        model = load_model(self.task, copy.deepcopy(self.config), self.setup.checkpoint if is_pretrained else None)
        if self.args.freeze_encoder:
            freeze(model.base_model)
        if self.args.peft is None:
            return model
        return add_adapter(model, self.args.peft, self.args.checkpoint if is_pretrained else None)

    @property
    def saves_adapter(self) -> bool:
        """Whether a run's model is saved as adapter and head: random weights would be lost, so they are merged."""
        return self.args.peft is not None and not self.args.from_scratch

    def trainer(
        self, model: torch.nn.Module, run: Run, unit: LabelUnit, rows: FinetuningRows | None = None
    ) -> StoppableTrainer:
        """A Trainer for a run, or, without rows to train on, for scoring."""
        trackers = [] if rows is None else self.args.report_to
        selects = rows is not None and self.data.validation is not None
        args = self._training_arguments(run, selects, [name for name in trackers if name != "tensorboard"])
        ignore_index = self.setup.ignore_index
        trainer = StoppableTrainer(
            model=model,
            args=args,
            data_collator=FinetuningCollator(self.data.collator, unit),
            train_dataset=rows,
            eval_dataset=self.data.validation,
            compute_metrics=make_scorer(
                self.task, self.metric, unit, run, ignore_index, pooled_owners(self.data.validation)
            ),
            preprocess_logits_for_metrics=PREDICTIONS.get(self.task, head_outputs),
            callbacks=self._callbacks(run, selects, "tensorboard" in trackers),
            optimizer_cls_and_kwargs=None if rows is None else self._optimizer(model, args),
        )
        trainer.patience = PatientWorkers()
        trainer.mixing = self.args.mixing(self.setup.num_labels)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(EpochTeller(rows))
        count_labels(trainer, self.task)
        return trainer

    def _optimizer(
        self, model: torch.nn.Module, args: TrainingArguments
    ) -> tuple[type[torch.optim.Optimizer], JsonObject] | None:
        """Trainer's `optimizer_cls_and_kwargs`; None leaves it to Trainer, which decays no bias and no norm."""
        if self.args.layer_decay is None:
            return None
        assert isinstance(model, PreTrainedModel), "the arguments refuse adapters with layer_decay"
        groups = layer_decay_groups(model, self.args.layer_decay, args.learning_rate, args.weight_decay)
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return optimizer_class, options | {"params": groups}

    def _training_arguments(self, run: Run, selects: bool, trackers: list[str]) -> TrainingArguments:
        args = self.args
        strategy = "steps" if args.eval_steps else "epoch"
        training_args = TrainingArguments(
            output_dir=str(self._scratch()),
            use_cpu=self.state.device.type == "cpu",  # without it mixed precision looks for an accelerator
            run_name=f"{self.folder.name}-{run.name}",
            seed=run.seed,
            learning_rate=run.learning_rate,
            num_train_epochs=args.num_train_epochs,
            max_steps=args.max_steps or -1,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.eval_batch_size,
            batch_eval_metrics=self.task in DENSE_TASKS,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            weight_decay=args.weight_decay,
            adam_beta1=args.adam_beta1,
            adam_beta2=args.adam_beta2,
            adam_epsilon=args.adam_epsilon,
            warmup_steps=args.warmup_ratio or args.warmup_steps,
            **self._schedule(),
            max_grad_norm=args.max_grad_norm or 0.0,
            **_recomputing(args.gradient_checkpointing),
            torch_compile=args.torch_compile,
            bf16=args.mixed_precision == "bf16",
            fp16=args.mixed_precision == "fp16",
            eval_strategy=strategy if selects else "no",
            eval_steps=args.eval_steps or None,
            # A model is written whenever it is the best so far, and read back at the end.
            save_strategy="best" if selects else "no",
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=selects,
            metric_for_best_model=self.metric,
            greater_is_better=self.metric not in LOWER_IS_BETTER,
            dataloader_num_workers=args.num_workers,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_steps=args.logging_steps,
            report_to=trackers or "none",
            disable_tqdm=True,  # `RunLine` is the line that moves
            remove_unused_columns=False,
            label_names=["labels"],
        )
        # TrainingArguments replace "no" by the precision of `accelerate launch`, and no argument prevents it.
        training_args.mixed_precision = args.mixed_precision or launched_precision()
        return training_args

    def _schedule(self) -> JsonObject:
        """The learning rate's schedule in transformers' terms."""
        name, lowest = self.args.lr_scheduler_type, self.args.min_learning_rate
        if lowest:
            return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": lowest}}
        # transformers' "constant" knows no warm-up.
        return {"lr_scheduler_type": "constant_with_warmup" if name == "constant" else name}

    def _callbacks(self, run: Run, selects: bool, with_tensorboard: bool) -> list[TrainerCallback]:
        callbacks: list[TrainerCallback] = []
        if selects and self.args.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(self.args.early_stopping_patience))
        if with_tensorboard:
            tensorboard = TensorBoardCallback()
            tensorboard.logging_dir = str(self.folder / "logs" / run.name)  # Trainer's own place is removed
            callbacks.append(tensorboard)
        return callbacks

    def _chosen_scores(self, trainer: Trainer) -> tuple[dict[str, float] | None, JsonObject]:
        """Validation scores of the model that is kept, and its epoch."""
        state = trainer.state
        if self.data.validation is None:
            return None, {"epoch": state.epoch}
        history = [entry for entry in state.log_history if f"eval_{self.metric}" in entry]
        best = next(entry for entry in history if entry["step"] == state.best_global_step)
        return metric_scores(best, "eval_"), {"epoch": best["epoch"], "validations": len(history)}

    def _history(self, trainer: Trainer) -> list[dict[str, float]]:
        """The scores and the loss of every validation, in the unit that is learnt."""
        if self.data.validation is None:
            return []
        entries = [entry for entry in trainer.state.log_history if f"eval_{self.metric}" in entry]
        return [
            {
                "epoch": entry["epoch"],
                "step": entry["step"],
                **metric_scores(entry, "eval_"),
                "loss": entry["eval_loss"],
            }
            for entry in entries
        ]

    def _score(self, trainer: Trainer, run: Run, unit: LabelUnit) -> dict[str, float]:
        """Scores on the test split, or on validation where there is none; the predictions are stored."""
        name, split = ("validation", self.data.validation) if self.data.test is None else ("test", self.data.test)
        assert split is not None, "`FinetuningSetup` refuses data without either"
        scorer, owners = trainer.compute_metrics, pooled_owners(split)
        if isinstance(scorer, MapScorer):
            scorer.kept_rows = map_rows(len(rows_of(split)))
        elif isinstance(scorer, Scorer):
            trainer.compute_metrics = dataclasses.replace(scorer, owners=owners)  # of this split
        # `trainer.predict` would keep the maps of all rows.
        output = trainer.evaluation_loop(trainer.get_test_dataloader(split), "Scoring", metric_key_prefix="test")
        if self.state.is_main_process:
            if isinstance(scorer, MapScorer):
                predictions = gather_maps(name, scorer)
            else:
                outputs, labels = np.asarray(output.predictions), np.asarray(output.label_ids)
                predictions = gather_predictions(self.task, name, *pooled_outputs(outputs, labels, owners), unit)
            predictions.save(predictions_path(self.folder, run))
        return metric_scores(output.metrics or {}, "test_")

    def score_stored(self, run: Run, record: JsonObject) -> JsonObject:
        """The record of a run with its test scores, which several learning rates put off until one is chosen."""
        folder = self.stored_model(run)
        trainer = self.trainer(self.open_model(folder), run, LabelUnit())
        record = record | {"test": self._score(trainer, run, LabelUnit())}
        if self.state.is_main_process:
            write_json(run.record_path(self.folder), record)
        self.state.wait_for_everyone()
        return record

    def open_model(self, folder: Path) -> torch.nn.Module:
        """The model of a run's folder."""
        config = copy.deepcopy(self.config)
        if not is_adapter(folder):
            return load_model(self.task, config, folder)
        assert self.setup.checkpoint is not None, "an adapter has a checkpoint"
        return load_adapter(self.task, config, folder, self.setup.checkpoint)

    def stored_model(self, run: Run) -> Path:
        """The folder of a run's model; the run is trained again where an earlier call threw its model away."""
        folder = run.model_folder(self.folder)
        if not self.setup.broadcast(folder.is_dir()):
            self.train(run, keep=True)
        return folder

    def _save(self, trainer: Trainer, run: Run, unit: LabelUnit) -> None:
        """Save the run's model, whole or not at all, and its processor; its outputs are in the labels' own unit."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        to_original_unit(model, unit)
        final = run.model_folder(self.folder)
        folder = incomplete_folder(final)
        if self.saves_adapter:
            save_adapter(model, folder)
        else:
            (model if self.args.peft is None else merged(model)).save_pretrained(folder)
        if self.data.processor is not None:
            self.data.processor.save_pretrained(folder)
        replace_folder(folder, final)

    def _scratch(self) -> Path:
        """Trainer's own folder."""
        return self.folder / SCRATCH

    def remove_scratch(self) -> None:
        """Remove Trainer's own folder."""
        self.state.wait_for_everyone()  # another process may still be reading the best model
        if self.state.is_main_process:
            shutil.rmtree(self._scratch(), ignore_errors=True)
        self.state.wait_for_everyone()


def count_labels(trainer: StoppableTrainer, task: str) -> None:
    """Let a Trainer divide the loss by the labels of all accumulated batches, of which some may have more than others.

    Args:
        trainer: Trainer of a head.
        task: Task of the head.
    """
    trainer.scored_labels = scored_values if task == "regression" else getattr(trainer.model, "scored_labels", None)
    if task in DENSE_TASKS and trainer.scored_labels is not None:
        trainer.model_accepts_loss_kwargs = True  # a dense head denies it, for the sake of what a plain Trainer counts


def finish_wandb(trainer: Trainer) -> None:
    """End the run that Weights & Biases has open, which the next training would continue."""
    wandb: Any = sys.modules.get("wandb")
    if "wandb" in (trainer.args.report_to or []) and wandb is not None and wandb.run is not None:
        wandb.finish()


def _recomputing(is_wanted: bool) -> JsonObject:
    """Whether activations are recomputed, by the name that this version of transformers has for it."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    # The reentrant way wants inputs that have gradients.
    return {name: is_wanted, f"{name}_kwargs": {"use_reentrant": False}}
