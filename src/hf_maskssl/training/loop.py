"""The one pre-training loop: any model whose forward returns `loss` and `loss_parts`, on one process or many."""

import collections
import dataclasses
import json
import logging
import math
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedType, skip_first_batches
from accelerate.utils import GradientAccumulationPlugin, set_seed
from safetensors.torch import load_model
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModelForPreTraining, PreTrainedModel, get_scheduler

from ..data.preparation import PreparedData, prepare_data
from ..data.recipe import build_config
from ..evaluation.online import online_probe
from ..evaluation.pictures import draw_curves, draw_reconstruction
from ..evaluation.reports import write_json
from .arguments import PretrainingArguments, PretrainingRecipe
from .checkpoints import (
    BEST,
    MANIFEST,
    STATE_FILE,
    checkpoint_folder,
    copy_as,
    find_problem,
    incomplete_folder,
    list_checkpoints,
    newest_sound_checkpoint,
    read_state,
    replace_files,
    seal,
    thin_out,
)

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
NOT_INPUTS = ("index", "labels")  # of a batch: for error messages and for probes
# Writes README.md, given the folder, the recipe and the run's state so far.
CardWriter = Callable[[Path, PretrainingRecipe, "RunState"], None]


@dataclasses.dataclass
class RunState:
    """Where a run stands; saved with every checkpoint, so that a resumed run goes on as if nothing had happened.

    Attributes:
        step: optimiser steps done.
        epoch: passes over the data finished.
        batches_in_epoch: batches of the current pass already used (per process).
        seconds: training time, summed over resumptions.
        best_loss: lowest validation loss.
        history: one dict per logged step: `step` and named values.
        interrupted: whether SIGTERM ended the run.
        layout: processes, batch size and accumulation the data order depends on.
    """

    step: int = 0
    epoch: int = 0
    batches_in_epoch: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    interrupted: bool = False
    layout: dict[str, int] = dataclasses.field(default_factory=dict)

    def latest(self, name: str) -> float | None:
        """The last logged value of `name`, or None."""
        return next((entry[name] for entry in reversed(self.history) if name in entry), None)


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite."""


def pretrain(recipe: PretrainingRecipe, write_card: CardWriter | None = None) -> RunState:
    """Run a recipe from its data to a folder that `AutoModel.from_pretrained` opens.

    Args:
        recipe: the run.
        write_card: called on the main process for every checkpoint and at the end.

    Returns:
        The final state; `interrupted` when SIGTERM ended the run early (everything is saved then).

    Raises:
        ValueError: anything in the recipe, the data or the output folder that cannot work; `NonFiniteLossError` when
            training diverges.
    """
    return Pretrainer(recipe, write_card).run()


class Pretrainer:
    """One run. Methods in the order in which they happen."""

    def __init__(self, recipe: PretrainingRecipe, write_card: CardWriter | None = None) -> None:
        self.recipe = recipe
        self.args: PretrainingArguments = recipe.training
        self.write_card = write_card
        self.output_dir = _writable_folder(Path(self.args.output_dir))
        self.accelerator = self._build_accelerator()
        self.state = RunState()
        self.stop_requested = False  # agreed on by all processes
        self._signal_received = False
        # Losses not yet looked at: on a GPU looking waits for the device, so it is done every `logging_steps`.
        self._unchecked: collections.deque[tuple[int, torch.Tensor | None, torch.Tensor]] = collections.deque()
        self._window: dict[str, torch.Tensor] = {}
        self._window_batches = 0
        self._grad_norm: torch.Tensor | None = None

    # set-up

    def _build_accelerator(self) -> Accelerator:
        args = self.args
        try:
            return Accelerator(
                mixed_precision=args.mixed_precision,
                log_with=args.report_to or None,
                project_dir=str(self.output_dir),
                # Every `gradient_accumulation_steps` batches are one step, also across the end of an epoch.
                gradient_accumulation_plugin=GradientAccumulationPlugin(
                    num_steps=args.gradient_accumulation_steps, sync_with_dataloader=False
                ),
                dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
                step_scheduler_with_optimizer=False,
            )
        except ValueError as error:
            raise ValueError(f"training.report_to={args.report_to} or training.mixed_precision: {error}") from error

    def _build_model(self) -> PreTrainedModel:
        set_seed(self.args.seed)
        model = AutoModelForPreTraining.from_config(build_config(self.recipe.model))
        if self.accelerator.distributed_type == DistributedType.FSDP:
            reason = model.reason_against_fsdp() if hasattr(model, "reason_against_fsdp") else None
            if reason:
                raise ValueError(f"{type(model).__name__} cannot be sharded by FSDP. {reason}")
        if self.args.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if self.args.torch_compile:
            for module in model.compilable_modules() if hasattr(model, "compilable_modules") else [model]:
                module.compile()
        return model

    def _build_optimizer(self, model: PreTrainedModel) -> torch.optim.Optimizer:
        args = self.args
        groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
        if not args.decay_norm_and_bias:
            named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
            plain = [p for name, p in named if p.ndim < 2 or "token" in name.rsplit(".", 1)[-1]]
            chosen = {id(p) for p in plain}
            groups = [
                {"params": [p for _, p in named if id(p) not in chosen]},
                {"params": plain, "weight_decay": 0.0},
            ]
        return torch.optim.AdamW(
            groups,
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=args.weight_decay,
            fused=self.accelerator.device.type in ("cuda", "cpu"),
        )

    def _build_loader(self) -> DataLoader:
        args = self.args
        dataset: Any = self.prepared.train
        sized = hasattr(dataset, "__len__")
        needed = args.batch_size * self.accelerator.num_processes
        if sized and len(dataset) < needed:
            raise ValueError(
                f"the training split has {len(dataset)} rows, fewer than one batch of "
                f"training.batch_size={args.batch_size} on each of {self.accelerator.num_processes} process(es): lower "
                f"training.batch_size to {len(dataset) // self.accelerator.num_processes} or less."
            )
        if not sized:
            dataset = dataset.shuffle(seed=args.seed, buffer_size=max(1000, 10 * args.batch_size))
        return DataLoader(
            dataset,
            batch_size=args.batch_size,
            shuffle=sized or None,
            drop_last=True,
            collate_fn=self.prepared.collator,
            num_workers=args.num_workers,
            pin_memory=args.pin_memory and self.accelerator.device.type == "cuda",
            persistent_workers=args.num_workers > 0,
            # Workers' seeds come from this generator: making an iterator leaves the model's random numbers alone.
            generator=torch.Generator().manual_seed(args.seed),
        )

    def _set_up(self) -> None:
        args = self.args
        config = build_config(self.recipe.model)
        with self.accelerator.main_process_first():
            self.prepared: PreparedData = prepare_data(self.recipe.data, config)
        model = self._build_model()
        loader = self._build_loader()
        optimizer = self._build_optimizer(model)
        self.scheduler = get_scheduler(
            "constant_with_warmup" if args.lr_scheduler_type == "constant" else args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.warmup_steps,
            num_training_steps=args.max_steps,
        )
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.state.layout = {
            "num_processes": self.accelerator.num_processes,
            "batch_size": args.batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "seed": args.seed,
        }
        if self.accelerator.distributed_type != DistributedType.FSDP:
            # The folder holds the weights once, as save_pretrained writes them.
            self.accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
            self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        if args.report_to:
            self.accelerator.init_trackers(args.project_name, config=_flat_settings(self.recipe))

    @property
    def _bare_model(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    # the run

    def run(self) -> RunState:
        self._set_up()
        if self.args.resume:
            self._resume()
        elif list_checkpoints(self.output_dir):
            raise ValueError(
                f"training.output_dir {self.output_dir} holds checkpoints of an earlier run: pass --resume to continue "
                "it, or name another folder."
            )
        self._watch_signals()
        started = time.perf_counter() - self.state.seconds
        progress = tqdm(
            total=self.args.max_steps,
            initial=self.state.step,
            desc="pre-training",
            unit="step",
            disable=not self.accelerator.is_local_main_process,
        )
        batches = self._batches()
        while self.state.step < self.args.max_steps and not self.stop_requested:
            self._step(batches)
            self.state.seconds = time.perf_counter() - started
            progress.update()
            self._after_step(progress)
        progress.close()
        self._finish()
        return self.state

    def _batches(self) -> Iterator[Batch]:
        """Endless batches; epoch e is the permutation of seed + e, so a resumed run finds its place again."""
        while True:
            self.loader.set_epoch(self.state.epoch)
            loader = self.loader
            if self.state.batches_in_epoch:
                loader = skip_first_batches(self.loader, self.state.batches_in_epoch)
                loader.set_epoch(self.state.epoch)
            is_empty = True
            for batch in loader:
                is_empty = False
                self.state.batches_in_epoch += 1
                yield batch
            if is_empty and not self.state.batches_in_epoch:
                raise ValueError(
                    f"the training data gave no full batch of training.batch_size={self.args.batch_size} rows: lower it "
                    "or add data."
                )
            self.state.epoch += 1
            self.state.batches_in_epoch = 0

    def _step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step: `gradient_accumulation_steps` batches."""
        step = self.state.step + 1
        for part in range(self.args.gradient_accumulation_steps):
            batch = next(batches)
            # Masks and dropout are a function of seed, step, part and process alone: there is nothing to restore.
            set_seed(_mix(self.args.seed, step, part, self.accelerator.process_index))
            rows = batch.pop("index", None)
            batch.pop("labels", None)
            with self.accelerator.accumulate(self.model):
                outputs = self.model(**batch)
                self._record(step, rows, outputs)
                self.accelerator.backward(outputs.loss)
                if self.accelerator.sync_gradients:
                    self._clip_gradients(step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
        self.state.step = step

    def _clip_gradients(self, step: int) -> None:
        limit = self.args.max_grad_norm
        if limit is None and step % self.args.logging_steps:
            return  # the norm is only wanted for the log
        limit = math.inf if limit is None else limit
        self._grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)

    def _record(self, step: int, rows: torch.Tensor | None, outputs: Any) -> None:
        parts = {"loss": outputs.loss.detach(), **(outputs.loss_parts or {})}
        for name, value in parts.items():
            self._window[name] = self._window.get(name, 0.0) + value.float()
        self._window_batches += 1
        self._unchecked.append((step, rows, parts["loss"]))
        if self.accelerator.device.type == "cpu":
            self._check_finite()

    def _check_finite(self) -> None:
        while self._unchecked:
            step, rows, loss = self._unchecked.popleft()
            if not torch.isfinite(loss):
                last = newest_sound_checkpoint(self.output_dir)
                raise NonFiniteLossError(
                    f"the loss is {loss.item()} at step {step} on process {self.accelerator.process_index}; the batch's "
                    f"rows are {'unknown' if rows is None else rows.tolist()}. The last good checkpoint is "
                    f"{last or 'none yet'}. Look at those rows, lower training.learning_rate, or set "
                    "training.max_grad_norm."
                )

    def _after_step(self, progress: tqdm) -> None:
        args, step = self.args, self.state.step
        last = step == args.max_steps
        if step % args.logging_steps == 0 or last:
            self._log_window(progress)
            if self.accelerator.num_processes > 1:
                # Processes must leave the loop at the same step, so they agree here rather than at every step.
                self.stop_requested = self._any_process(self._signal_received)
        if self.accelerator.num_processes == 1:
            self.stop_requested = self._signal_received
        if args.eval_steps and (step % args.eval_steps == 0 or last):
            self._validate()
        if self.recipe.probe.every_steps and (step % self.recipe.probe.every_steps == 0 or last):
            self._probe()
        if args.picture_steps and (step % args.picture_steps == 0 or last):
            self._draw()
        if args.save_steps and step % args.save_steps == 0 and not last:
            self._save()

    def _any_process(self, flag: bool) -> bool:
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, reduction="sum").item() > 0)

    # watching

    def _log(self, values: dict[str, float]) -> None:
        """Add values of the current step to the history and the trackers."""
        history = self.state.history
        if history and history[-1]["step"] == self.state.step:
            history[-1] |= values
        else:
            history.append({"step": self.state.step, **values})
        if self.args.report_to:
            self.accelerator.log(values, step=self.state.step)

    def _log_window(self, progress: tqdm) -> None:
        self._check_finite()
        names = sorted(self._window)
        means = torch.stack([self._window[name].reshape(()) for name in names]) / self._window_batches
        means = self.accelerator.reduce(means, reduction="mean")
        values = {f"train/{name}": value for name, value in zip(names, means.tolist(), strict=True)}
        values["train/learning_rate"] = self.scheduler.get_last_lr()[0]
        if self._grad_norm is not None:
            values["train/grad_norm"] = float(self._grad_norm)
        self._window, self._window_batches, self._grad_norm = {}, 0, None
        self._log(values)
        progress.set_postfix({name: f"{values[f'train/{name}']:.4g}" for name in names}, refresh=False)

    @torch.no_grad()
    def _validate(self) -> None:
        """Mean validation loss over at most `eval_batches` batches, with the same masks every time."""
        if self.prepared.validation is None:
            raise ValueError(
                "training.eval_steps needs validation data: name data.validation_split or data.validation_fraction."
            )
        model = self.model
        model.eval()
        set_seed(_mix(self.args.seed, 0, 0, 0))
        totals: dict[str, float] = {}
        count = 0
        for batch in self._validation_batches():
            rows = len(next(iter(batch.values())))
            outputs = model(**batch)
            for name, value in {"loss": outputs.loss, **(outputs.loss_parts or {})}.items():
                totals[name] = totals.get(name, 0.0) + rows * float(value)
            count += rows
        model.train()
        values = {f"validation/{name}": value / count for name, value in totals.items()}
        self._log(values)
        loss = values["validation/loss"]
        if self.args.save_best and (self.state.best_loss is None or loss < self.state.best_loss):
            self.state.best_loss = loss
            self._save(best=True)

    def _validation_batches(self) -> Iterator[Batch]:
        """The same batches on every process, so that losses which gather over processes find partners of the same size."""
        dataset: Any = self.prepared.validation
        loader = DataLoader(dataset, batch_size=self.args.batch_size, collate_fn=self.prepared.collator)
        for number, batch in enumerate(loader):
            if number == self.args.eval_batches:
                return
            yield {name: part.to(self.accelerator.device) for name, part in batch.items() if name not in NOT_INPUTS}

    def _probe(self) -> None:
        encoder = self._bare_model.base_model
        self._log(online_probe(encoder, self.prepared, self.recipe.probe, self.accelerator.device))

    def _draw(self) -> None:
        """Reconstructions and curves. Every process computes them, because losses gather; the main process writes."""
        folder = self.output_dir / "pictures"
        folder.mkdir(exist_ok=True)
        source: Any = self.prepared.validation if self.prepared.validation is not None else self.prepared.train
        rows = [row for _, row in zip(range(8), source, strict=False)]
        batch = self.prepared.collator(rows)
        picture = folder / f"reconstruction-{self.state.step:08d}.png"
        is_main = self.accelerator.is_main_process
        draw_reconstruction(self._bare_model, batch, picture if is_main else None, self.prepared.processor)
        if is_main:
            draw_curves(self.state.history, folder / "curves.png")

    # saving and resuming

    def _save(self, best: bool = False) -> None:
        """A sealed checkpoint of this step; `best` also keeps it as `checkpoint-best`."""
        self._check_finite()
        final = checkpoint_folder(self.output_dir, self.state.step)
        folder = final.with_name(final.name + ".incomplete")
        if not final.exists() or find_problem(final) is not None:
            if self.accelerator.is_main_process:
                folder = incomplete_folder(final)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(folder / "training_state"), safe_serialization=True)
            self._save_model(folder)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                write_json(folder / STATE_FILE, dataclasses.asdict(self.state))
                seal(folder, final)
                thin_out(self.output_dir, self.args.save_total_limit)
        if best and self.accelerator.is_main_process:
            copy_as(final, self.output_dir / BEST)
        self.accelerator.wait_for_everyone()

    def _save_model(self, folder: Path) -> None:
        """What `save_pretrained` writes for model and processor, and the card."""
        state_dict = self.accelerator.get_state_dict(self.model)
        if not self.accelerator.is_main_process:
            return
        self._bare_model.save_pretrained(folder, state_dict=state_dict)
        if self.prepared.processor is not None:
            self.prepared.processor.save_pretrained(folder)
        if self.write_card is not None:
            self.write_card(folder, self.recipe, self.state)

    def _resume(self) -> None:
        folder = newest_sound_checkpoint(self.output_dir)
        if folder is None:
            logger.warning("No sound checkpoint in %s: starting from the beginning.", self.output_dir)
            return
        saved = json.loads((folder / "config.json").read_text())
        model = self._bare_model
        if saved.get("model_type") != model.config.model_type:
            raise ValueError(
                f"{folder} is a checkpoint of model_type '{saved.get('model_type')}', the recipe's model_type is "
                f"'{model.config.model_type}': name another training.output_dir."
            )
        state = RunState(**read_state(folder))
        if state.layout != self.state.layout:
            raise ValueError(
                f"{folder} was written with {state.layout}, this run has {self.state.layout}: the data order depends on "
                "them. Resume with the former values, or start another training.output_dir."
            )
        if self.accelerator.distributed_type != DistributedType.FSDP:
            load_model(model, folder / "model.safetensors", device=str(self.accelerator.device))
        self.accelerator.load_state(str(folder / "training_state"))
        state.interrupted = False
        self.state = state
        logger.info("Resumed from %s at step %d.", folder, state.step)

    def _watch_signals(self) -> None:
        def request_stop(number: int, frame: FrameType | None) -> None:
            self._signal_received = True

        signal.signal(signal.SIGTERM, request_stop)

    def _finish(self) -> None:
        """Save the last step; a complete run also puts its model at the top of `output_dir`."""
        self.state.interrupted = self.state.step < self.args.max_steps
        self._save()
        if self.accelerator.is_main_process and not self.state.interrupted:
            last = checkpoint_folder(self.output_dir, self.state.step)
            replace_files(self.output_dir, lambda folder: _copy_model_files(last, folder))
        self.accelerator.wait_for_everyone()
        if self.args.report_to:
            self.accelerator.end_training()


def _copy_model_files(checkpoint: Path, folder: Path) -> None:
    """What a reader of the model needs, without what only a resumed run needs."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != MANIFEST:
            shutil.copy2(path, folder / path.name)


def _writable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"training.output_dir {folder} cannot be written: {error}. Name a folder you may write to."
        ) from error
    return folder


def _mix(*numbers: int) -> int:
    """One well-spread 32-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _flat_settings(recipe: PretrainingRecipe) -> dict[str, Any]:
    """`section/field` -> value, of the kinds that every tracker takes."""
    settings = {f"model/{name}": value for name, value in recipe.model.items()}
    for section in ("data", "probe", "training"):
        for name, value in dataclasses.asdict(getattr(recipe, section)).items():
            settings[f"{section}/{name}"] = value
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in settings.items()}
