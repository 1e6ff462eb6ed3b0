"""Fine-tuning through transformers' Trainer: every seed and learning rate, chosen on validation, scored on test."""

import copy
import dataclasses
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
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

from ...data.arguments import DENSE_TASKS, fields_of_kinds
from ...data.preparation import prepare_data
from ...data.processors import load_processor
from ...data.tables.rows import TransformedRows
from ...evaluation.evaluate_checkpoint import checkpoint_folder
from ...evaluation.metrics import LOWER_IS_BETTER
from ...evaluation.reports import writable_folder, write_json
from ...launch import launched_state
from ..pretraining.checkpoints import incomplete_folder
from .arguments import FinetuningRecipe, load_finetuning_recipe
from .baselines import Baselines
from .digests import rows_digest, weights_digest
from .drawing import PICTURES, Drawing
from .layer_decay import layer_decay_groups
from .models import (
    choose_inputs,
    complete_processor,
    freeze,
    load_model,
    new_inputs,
    read_config,
    to_original_unit,
)
from .predictions import gather_maps, gather_predictions, map_rows, predictions_path
from .results import Run, read_runs, summarise, write_results
from .scores import PREDICTIONS, FinetuningCollator, LabelUnit, head_outputs, make_scorer, metric_scores

# What may change between two calls without changing what a run gives.
IMMATERIAL = {"output_dir", "overwrite", "seeds", "learning_rate", "eval_batch_size", "num_workers", "logging_steps"}
IMMATERIAL |= {"report_to", "save_model", "num_proc", "baselines"}
FROM_SCRATCH = "from_scratch"  # folder of the output_dir: the runs without pre-training
LABEL_ROWS = 1024  # rows of which labels are read at a time

# Called with the kept model's folder, the recipe and the results.
CardWriter = Callable[[Path, FinetuningRecipe, Mapping[str, Any]], None]

logger = logging.getLogger(__name__)


def finetune(recipe: FinetuningRecipe, write_card: CardWriter | None = None) -> dict[str, Any]:
    """Fine-tune on every seed with every learning rate; returns what results.json holds (see `Finetuner.run`)."""
    return Finetuner(recipe, write_card).run()


def finetune_from_command_line(document: str, write_card: CardWriter | None = None, task: str | None = None) -> None:
    """What the scripts do: RECIPE.yaml and its overrides in, results.md out.

    Args:
        document: The script's, printed where there is no recipe.
        write_card: As `finetune`'s.
        task: The only `data.task` that the script is for; None is for every one.

    Raises:
        ValueError: The recipe is of another task.
    """
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(document)
    recipe = load_finetuning_recipe(sys.argv[1], sys.argv[2:])
    if task is not None and recipe.data.task != task:
        raise ValueError(f"data.task is {recipe.data.task!r}; this script is for {task!r}: take run_finetune.py.")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    finetune(recipe, write_card)
    if PartialState().is_main_process:
        print((Path(recipe.finetuning.output_dir) / "results.md").read_text(encoding="utf-8"))


class ScoreLogger(TrainerCallback):
    """One line of the log for each validation."""

    def __init__(self, run: Run, metric: str) -> None:
        self.run, self.metric = run, metric

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            score = kwargs["metrics"][f"eval_{self.metric}"]
            logger.info("%s, epoch %.4g: validation %s %.4f", self.run.title, state.epoch or 0, self.metric, score)


class EpochTeller(TrainerCallback):
    """Tells the training rows which epoch of which run it is: with several processes the loader does not."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if isinstance(self.rows, TransformedRows):
            self.rows.set_epoch(round(state.epoch or 0), args.seed)


class Finetuner:
    """A recipe's runs, those that are stored already left out.

    Args:
        recipe: What to do.
        write_card: Writes the README.md of the model that is kept; called on the main process at the end.

    Raises:
        ValueError: A recipe whose parts do not fit each other, the data or what `output_dir` holds already, or a
            launch with FSDP or DeepSpeed, or of processes that do not know of each other.
        FileNotFoundError: No such checkpoint or data.
    """

    def __init__(self, recipe: FinetuningRecipe, write_card: CardWriter | None = None) -> None:
        refuse_sharding()
        self.recipe, self.args, self.write_card = recipe, recipe.finetuning, write_card
        self.state = launched_state()
        self.folder = writable_folder(Path(self.args.output_dir), "finetuning.output_dir")
        self.checkpoint = None if self.args.checkpoint is None else self._find_checkpoint(self.args.checkpoint)
        self.config = read_config(recipe.model, self.checkpoint)
        data = choose_inputs(self.config, recipe.data, self.args.inputs, recipe.model)
        self.inputs = list(data.input_column) if isinstance(data.input_column, dict) else None
        processor = None if self.checkpoint is None else load_processor(self.checkpoint)
        with self.state.main_process_first():  # the others find the prepared rows in the cache
            processor = complete_processor(processor, data, self.config)
            self.data = prepare_data(data, self.config, processor, require_labels=True)
        self.task = str(self.data.task)
        self.num_labels = int(self.data.num_labels or 0)
        self._check_data()
        self.metric = self.args.headline_metric(self.task, self.num_labels)
        self._set_labels()
        self._check_recipe_of_runs()
        self.baselines = self._plan_baselines() if self.args.baselines else None

    def run(self) -> dict[str, Any]:
        """Train what is missing, choose the learning rate, score the test split, write results.json and results.md.

        Returns:
            What results.json holds: "scores" {split: {metric: {"mean", "half_width"}}} of the chosen "learning_rate",
            "runs" with every seed and learning rate, "selection" in words, "table", "settings".
        """
        records: dict[Run, dict[str, Any]] = self._broadcast(read_runs(self.folder))
        rates, seeds = self.args.learning_rates, self.args.seeds
        for run in [Run(rate, seed) for rate in rates for seed in seeds]:
            if run in records:
                logger.info("%s: stored already", run.title)
            else:
                records[run] = self._train(run)
        chosen = self._best_rate(records)
        for run in [Run(chosen, seed) for seed in seeds]:
            if self.data.test is not None and records[run]["test"] is None:
                records[run] = self._score_stored(run, records[run])
        results = summarise(
            {run: records[run] for run in records if run.learning_rate in rates and run.seed in seeds},
            chosen,
            self.metric,
        )
        results |= self._description()
        if self.args.save_model:
            results["model"] = dataclasses.asdict(self._keep_best(records, chosen))
        self._remove_scratch()
        if self.state.is_main_process:
            self._clean_up()
            write_results(self.folder, results)
        if self.baselines is not None:
            results |= self.baselines.compare(results)
        results |= self._draw(results)
        if self.state.is_main_process:
            write_results(self.folder, results)
            if self.args.save_model and self.write_card is not None:
                self.write_card(self.folder / "model", self.recipe, results)
        self.state.wait_for_everyone()
        return results

    # Before the runs.

    def _find_checkpoint(self, name: str) -> Path:
        try:
            return checkpoint_folder(name)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"finetuning.checkpoint: {error}") from error

    def _check_data(self) -> None:
        if not hasattr(self.data.train, "__len__"):
            raise ValueError("data.streaming: fine-tuning draws its rows in random order; set it to false.")
        self._check_frozen()
        if self.task not in ("regression", "depth_estimation") and self.num_labels < 2:
            raise ValueError(f"data.label_column: expected at least two classes, found {self.data.label_names}.")
        wanted = self.args.labelled_samples
        if wanted is not None and wanted > len(self.data.train):
            raise ValueError(
                f"finetuning.labelled_samples is {wanted}; there are {len(self.data.train)} training rows."
            )
        if self.data.validation is None and self.data.test is None:
            raise ValueError(
                "data.test_split: fine-tuning needs rows to score that it was not trained on; set data.test_split, "
                "data.validation_split or data.validation_fraction."
            )
        if self.data.validation is None:
            needs = {"learning_rate": len(self.args.learning_rates) > 1, "eval_steps": self.args.eval_steps > 0}
            needs["early_stopping_patience"] = self.args.early_stopping_patience > 0
            for name in [name for name, is_needed in needs.items() if is_needed]:
                raise ValueError(
                    f"finetuning.{name}={getattr(self.args, name)} needs a validation split to choose on; set "
                    "data.validation_split or data.validation_fraction."
                )

    def _check_frozen(self) -> None:
        if not self.args.freeze_encoder or self.checkpoint is None or self.args.from_scratch:
            return
        new = [name for name in new_inputs(self.config, self.checkpoint) if name in (self.inputs or [])]
        if new:
            raise ValueError(
                f"finetuning.freeze_encoder: the input projection of {new} is new, as the checkpoint was not pre-trained "
                "with it, and has to be trained: set freeze_encoder to false, or choose other finetuning.inputs."
            )

    def _set_labels(self) -> None:
        config, names = self.config, self.data.label_names
        config.num_labels = self.num_labels
        if names is not None:
            config.id2label = dict(enumerate(names))
            config.label2id = {name: number for number, name in enumerate(names)}
        if self.task in ("classification", "regression"):
            config.problem_type = "regression" if self.task == "regression" else "single_label_classification"

    def _check_recipe_of_runs(self) -> None:
        """Stored runs of another recipe are refused, or removed where that is asked for."""
        path = self.folder / "runs" / "recipe.json"
        material = self._broadcast(json.loads(json.dumps(self._material())) if self.state.is_main_process else None)
        stored = self._broadcast(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else material)
        changed = [name for name in {**stored, **material} if stored.get(name) != material.get(name)]
        if changed and not self.args.overwrite:
            changes = ", ".join(f"{name} was {stored.get(name)!r}, is now {material.get(name)!r}" for name in changed)
            raise ValueError(
                f"{self.folder} holds runs of another recipe ({changes}): take back the change, name another "
                "finetuning.output_dir, or set finetuning.overwrite to throw those runs away."
            )
        if self.state.is_main_process:
            if changed:
                shutil.rmtree(self.folder / "runs")
                for name in (FROM_SCRATCH, PICTURES):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                for name in ("results.json", "results.md"):
                    (self.folder / name).unlink(missing_ok=True)
            write_json(path, material)
        self.state.wait_for_everyone()

    def _material(self) -> dict[str, Any]:
        """All that decides what a run gives, as flat `section.field` names."""
        sections = {name: dataclasses.asdict(getattr(self.recipe, name)) for name in ("data", "finetuning")}
        sections["data"] = fields_of_kinds() | sections["data"]  # as runs of before have it
        model = {name: value for name, value in self.config.to_diff_dict().items() if name != "transformers_version"}
        flat = {
            f"{section}.{name}": value
            for section, fields in {"model": model, **sections}.items()
            for name, value in fields.items()
            if name not in IMMATERIAL
        }
        flat["finetuning.mixed_precision"] = self.args.mixed_precision or launched_precision()
        weights = None if self.checkpoint is None else weights_digest(self.checkpoint)
        digests = {f"{name} rows (hash)": rows_digest(split) for name, split in self._splits().items()}
        return flat | {"weights": weights, "rows": self._rows(), **digests, "processes": self.state.num_processes}

    def _splits(self) -> dict[str, Any]:
        splits = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: split for name, split in splits.items() if split is not None}

    def _rows(self) -> dict[str, int]:
        return {name: len(split) for name, split in self._splits().items()}

    def _broadcast(self, value: Any) -> Any:
        """The main process's value, in every process: files may appear while others read."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    # A run.

    def _train(self, run: Run, keep: bool = False) -> dict[str, Any]:
        """One seed with one learning rate; its record is stored before this returns, and its model where needed or
        asked for (`keep`).
        """
        started = time.perf_counter()
        rows = self._training_rows(run.seed)
        unit = self._label_unit(rows)
        self._remove_scratch()
        set_seed(run.seed)
        model = self._new_model()
        trainer = self._trainer(model, run, unit, rows)
        output = trainer.train()
        validation, place = self._chosen_scores(trainer)
        several_rates = len(self.args.learning_rates) > 1
        record: dict[str, Any] = {
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            **place,
            "validation": validation,
            "test": None,
            "history": self._history(trainer),
            "steps": trainer.state.global_step,
            "training_loss": output.training_loss,
        }
        if self.data.test is None:
            self._score(trainer, run, unit)  # for the pictures; the scores are those of validation
        elif not several_rates:
            record["test"] = self._score(trainer, run, unit)
        record["seconds"] = round(time.perf_counter() - started, 1)
        if self.state.is_main_process:
            if keep or self.args.save_model or several_rates:
                self._save(trainer, run, unit)
            write_json(run.record_path(self.folder), record)
        finish_wandb(trainer)
        self._remove_scratch()
        return record

    def _training_rows(self, seed: int) -> Any:
        rows: Any = self.data.train
        if self.args.labelled_samples is None:
            return rows
        order = np.random.default_rng(seed).permutation(len(rows))
        return rows.select(np.sort(order[: self.args.labelled_samples]).tolist())

    def _label_unit(self, rows: Any) -> LabelUnit:
        if self.task != "regression" or not self.args.standardize_labels:
            return LabelUnit()
        numbers = range(len(rows))
        parts = [rows.__getitems__(numbers[start : start + LABEL_ROWS]) for start in numbers[::LABEL_ROWS]]
        labels = np.array([row["labels"] for part in parts for row in part], dtype=np.float64)
        return LabelUnit(float(labels.mean()), float(labels.std()) or 1.0)

    def _new_model(self) -> PreTrainedModel:
        is_pretrained = self.checkpoint is not None and not self.args.from_scratch
        model = load_model(self.task, copy.deepcopy(self.config), self.checkpoint if is_pretrained else None)
        if self.args.freeze_encoder:
            freeze(model.base_model)
        return model

    def _trainer(self, model: PreTrainedModel, run: Run, unit: LabelUnit, rows: Any = None) -> Trainer:
        """A Trainer for a run, or, without rows to train on, for scoring."""
        trackers = [] if rows is None else self.args.report_to
        selects = rows is not None and self.data.validation is not None
        args = self._training_arguments(run, selects, [name for name in trackers if name != "tensorboard"])
        ignore_index = getattr(self.config, "semantic_loss_ignore_index", 255)
        trainer = Trainer(
            model=model,
            args=args,
            data_collator=FinetuningCollator(self.data.collator, unit),
            train_dataset=rows,
            eval_dataset=self.data.validation,
            compute_metrics=make_scorer(self.task, self.metric, unit, run, ignore_index),
            preprocess_logits_for_metrics=PREDICTIONS.get(self.task, head_outputs),
            callbacks=self._callbacks(run, selects, "tensorboard" in trackers),
            optimizer_cls_and_kwargs=None if rows is None else self._optimizer(model, args),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(EpochTeller(rows))
        if self.task == "regression":
            # This loss is a mean over the batch and knows no `num_items_in_batch`: Trainer must divide it by the
            # accumulated batches. Dense heads say so themselves.
            trainer.model_accepts_loss_kwargs = False
        return trainer

    def _optimizer(self, model: PreTrainedModel, args: TrainingArguments) -> tuple[Any, dict[str, Any]] | None:
        """What Trainer takes as `optimizer_cls_and_kwargs`; None leaves it to Trainer, which decays no bias and no norm."""
        if self.args.layer_decay is None:
            return None
        groups = layer_decay_groups(model, self.args.layer_decay, args.learning_rate, args.weight_decay)
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return optimizer_class, options | {"params": groups}

    def _training_arguments(self, run: Run, selects: bool, trackers: list[str]) -> TrainingArguments:
        args = self.args
        strategy = "steps" if args.eval_steps else "epoch"
        training_args = TrainingArguments(
            output_dir=str(self._scratch()),
            use_cpu=self.state.device.type
            == "cpu",  # said, because mixed precision looks for an accelerator otherwise
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
            bf16=args.mixed_precision == "bf16",
            fp16=args.mixed_precision == "fp16",
            eval_strategy=strategy if selects else "no",
            eval_steps=args.eval_steps or None,
            # A model is written when it is the best so far, and read back at the end.
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
            disable_tqdm=not sys.stderr.isatty(),
            remove_unused_columns=False,
            label_names=["labels"],
        )
        # TrainingArguments take what `accelerate launch` says for "no", too, and know of no argument against it.
        training_args.mixed_precision = args.mixed_precision or launched_precision()
        return training_args

    def _schedule(self) -> dict[str, Any]:
        """The learning rate's course in transformers' words."""
        name, lowest = self.args.lr_scheduler_type, self.args.min_learning_rate
        if lowest:
            return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": lowest}}
        # transformers' "constant" knows no warm-up.
        return {"lr_scheduler_type": "constant_with_warmup" if name == "constant" else name}

    def _callbacks(self, run: Run, selects: bool, with_tensorboard: bool) -> list[TrainerCallback]:
        callbacks: list[TrainerCallback] = [ScoreLogger(run, self.metric)] if selects else []
        if selects and self.args.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(self.args.early_stopping_patience))
        if with_tensorboard:
            tensorboard = TensorBoardCallback()
            tensorboard.logging_dir = str(self.folder / "logs" / run.name)  # Trainer's own place is removed
            callbacks.append(tensorboard)
        return callbacks

    def _chosen_scores(self, trainer: Trainer) -> tuple[dict[str, float] | None, dict[str, Any]]:
        """Validation scores of the model that is kept, and which epoch that is of."""
        state = trainer.state
        if self.data.validation is None:
            return None, {"epoch": state.epoch}
        history = [entry for entry in state.log_history if f"eval_{self.metric}" in entry]
        best = next(entry for entry in history if entry["step"] == state.best_global_step)
        return metric_scores(best, "eval_"), {"epoch": best["epoch"], "validations": len(history)}

    def _history(self, trainer: Trainer) -> list[dict[str, float]]:
        """The scores of every validation, and its loss, in the unit that is learnt."""
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
        """Scores on the test split, or on the validation split where there is none; what was predicted is stored."""
        name, split = ("validation", self.data.validation) if self.data.test is None else ("test", self.data.test)
        rows: Any = split
        scorer: Any = trainer.compute_metrics
        if self.task in DENSE_TASKS:
            scorer.kept_rows = map_rows(len(rows))
        # As `trainer.predict`, which would keep the maps of all rows.
        output = trainer.evaluation_loop(trainer.get_test_dataloader(rows), "Scoring", metric_key_prefix="test")
        if self.state.is_main_process:
            if self.task in DENSE_TASKS:
                predictions = gather_maps(name, scorer)
            else:
                predictions = gather_predictions(self.task, name, output.predictions, output.label_ids, unit)
            predictions.save(predictions_path(self.folder, run))
        return metric_scores(output.metrics or {}, "test_")

    def _save(self, trainer: Trainer, run: Run, unit: LabelUnit) -> None:
        """The run's model and its processor, complete or not there at all; its outputs in the labels' own unit."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        to_original_unit(model, unit)
        final = run.model_folder(self.folder)
        folder = incomplete_folder(final)
        model.save_pretrained(folder)
        if self.data.processor is not None:
            self.data.processor.save_pretrained(folder)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(folder, final)

    def _scratch(self) -> Path:
        """Trainer's own folder."""
        return self.folder / "trainer"

    def _remove_scratch(self) -> None:
        self.state.wait_for_everyone()  # another process may still be reading the best model
        if self.state.is_main_process:
            shutil.rmtree(self._scratch(), ignore_errors=True)
        self.state.wait_for_everyone()

    # After the runs.

    def _plan_baselines(self) -> Baselines:
        """What the runs are compared with; those without pre-training are told apart from other runs now, not at the end."""
        from_scratch = None
        if self.checkpoint is not None and not self.args.from_scratch:
            args = dataclasses.replace(
                self.args,
                from_scratch=True,
                baselines=False,
                save_model=False,
                output_dir=str(self.folder / FROM_SCRATCH),
            )
            from_scratch = Finetuner(dataclasses.replace(self.recipe, finetuning=args))
        ignore_index = getattr(self.config, "semantic_loss_ignore_index", 255)
        return Baselines(
            self.folder, self.data, self.metric, self.args, from_scratch, self._training_rows, ignore_index
        )

    def _draw(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Draw the pictures, on the main process; every process is told what was found."""
        found: dict[str, Any] = {}
        if self.state.is_main_process:
            found = Drawing(self.folder, self.data, self.recipe.data, self.config, results).draw()
        return self._broadcast(found)

    def _best_rate(self, records: Mapping[Run, dict[str, Any]]) -> float:
        def mean_score(rate: float) -> float:
            scores = [records[Run(rate, seed)]["validation"][self.metric] for seed in self.args.seeds]
            return float(np.mean(scores)) * (-1 if self.metric in LOWER_IS_BETTER else 1)

        rates = self.args.learning_rates
        return rates[0] if len(rates) == 1 else max(rates, key=mean_score)

    def _score_stored(self, run: Run, record: dict[str, Any]) -> dict[str, Any]:
        """The record of a run with its test scores, which several learning rates put off until one is chosen."""
        folder = self._stored_model(run)
        model = load_model(self.task, copy.deepcopy(self.config), folder)
        trainer = self._trainer(model, run, LabelUnit())
        record = record | {"test": self._score(trainer, run, LabelUnit())}
        if self.state.is_main_process:
            write_json(run.record_path(self.folder), record)
        self.state.wait_for_everyone()
        return record

    def _stored_model(self, run: Run) -> Path:
        """The folder of a run's model; trained again where an earlier call had no use for it and threw it away."""
        folder = run.model_folder(self.folder)
        if not self._broadcast(folder.is_dir()):
            self._train(run, keep=True)
        return folder

    def _keep_best(self, records: Mapping[Run, dict[str, Any]], chosen: float) -> Run:
        runs = [Run(chosen, seed) for seed in self.args.seeds]
        best = runs[0]
        if self.data.validation is not None:
            sign = -1 if self.metric in LOWER_IS_BETTER else 1
            best = max(runs, key=lambda run: sign * records[run]["validation"][self.metric])
        final = self.folder / "model"
        if not self._broadcast(self._kept_run() == best and final.is_dir()):
            source = self._stored_model(best)
            if self.state.is_main_process:
                shutil.rmtree(final, ignore_errors=True)
                os.replace(source, final)
        return best

    def _kept_run(self) -> Run | None:
        """Whose model `output_dir`/model is."""
        path = self.folder / "results.json"
        kept = json.loads(path.read_text(encoding="utf-8")).get("model") if path.is_file() else None
        return None if kept is None else Run(**kept)

    def _clean_up(self) -> None:
        """Remove models that turned out not to be wanted."""
        for path in (self.folder / "runs").iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def _description(self) -> dict[str, Any]:
        sections = {name: dataclasses.asdict(getattr(self.recipe, name)) for name in ("data", "finetuning")}
        return {
            "task": self.task,
            "inputs": self.inputs,
            "num_labels": self.num_labels,
            "label_names": self.data.label_names,
            "rows": self._rows(),
            "settings": {"model": self.recipe.model, **sections},
            "configuration": self.config.to_diff_dict(),
        }


def refuse_sharding() -> None:
    """Refuse a launch that splits a model over processes.

    Raises:
        ValueError: Naming what was asked for.
    """
    for name in ("FSDP", "DeepSpeed"):
        if parse_flag_from_env(f"ACCELERATE_USE_{name.upper()}"):
            raise ValueError(
                f"the launch asks for {name}, but fine-tuning runs data-parallel only: take "
                "examples/accelerate/eight_gpus.yaml."
            )


def launched_precision() -> str:
    """The mixed precision that `accelerate launch` was told."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def finish_wandb(trainer: Trainer) -> None:
    """End the run that Weights & Biases has open; the next training would go on with it."""
    wandb: Any = sys.modules.get("wandb")
    if "wandb" in (trainer.args.report_to or []) and wandb is not None and wandb.run is not None:
        wandb.finish()
