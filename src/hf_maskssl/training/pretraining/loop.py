"""The one pre-training loop: any model whose forward returns `loss` and `loss_parts`, on one process or many."""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    parse_flag_from_env,
    send_to_device,
    set_seed,
)
from safetensors.torch import load_model
from torch.distributed.tensor import DTensor
from tqdm.auto import tqdm
from transformers import AutoModelForPreTraining, PreTrainedModel, get_scheduler

from ...data.preparation import PreparedData, prepare_data
from ...data.tables.preparing import plain_rows
from ...evaluation.online import labelled_held_out, online_probe
from ...evaluation.reports import writable_folder, write_json
from ...launch import LONGEST_WAIT, check_launch
from ...models.layers import enable_checkpointing
from ...models.pretraining import pretraining_hooks
from ...pictures.modalities import draw_modalities, known_class_names
from ...pictures.reconstruction import draw_curves, draw_reconstruction
from ...recipes import build_config
from .arguments import PretrainingArguments, PretrainingRecipe, data_settings, flat_settings
from .averages import add_parts, averages, shown_beside_progress
from .batches import Batch, end_workers, training_loader, validation_batches, without_first
from .checkpoints import (
    BEST,
    INCOMPLETE,
    MANIFEST,
    STATE_FILE,
    check_same_model,
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
    warn_of_changed_data,
)
from .graphs import StepGraphs, add_sums, check_launch_for_graphs, check_model_for_graphs, step_graphs
from .optimizers import build_optimizer
from .precision import use_tf32
from .seeds import mix, seed_device, seed_step
from .sharding import embedding_in_root, fsdp_units
from .signals import SigtermWatch
from .starting import read_start, start_from

logger = logging.getLogger(__name__)

# Steps after which processes on GPUs agree on whether to stop: agreeing makes the CPU wait for the device.
AGREEMENT_STEPS = 10
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
        best_loss, best_step: lowest validation loss, and when it was.
        history: one dict per logged step: `step` and named values.
        window, window_batches: sums since the last logged step, and over how many batches.
        interrupted: whether SIGTERM ended the run.
        layout: processes, batch size and accumulation the data order depends on.
        data: the recipe's data section, each field as JSON.
    """

    step: int = 0
    epoch: int = 0
    batches_in_epoch: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    window_batches: int = 0
    interrupted: bool = False
    layout: dict[str, int] = dataclasses.field(default_factory=dict)
    data: dict[str, str] = dataclasses.field(default_factory=dict)

    def latest(self, name: str) -> float | None:
        """The last logged value of `name`, or None."""
        return next((entry[name] for entry in reversed(self.history) if name in entry), None)


class NonFiniteLossError(ValueError):
    """The loss or the weights became NaN or infinite."""


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
        self.output_dir = writable_folder(Path(self.args.output_dir), "training.output_dir")
        self.accelerator = self._build_accelerator()
        self.state = RunState()
        self.stop_requested = False  # agreed on by all processes
        self._sigterm = SigtermWatch()
        # Losses not yet looked at: on a GPU looking waits for the device, so it is done every `logging_steps`.
        self._unchecked: collections.deque[tuple[int, torch.Tensor | None, torch.Tensor]] = collections.deque()
        self._window: dict[str, torch.Tensor] = {}
        self._window_batches = 0
        self._grad_norm: torch.Tensor | None = None
        self._graphs: StepGraphs | None = None  # where training.cuda_graphs records whole steps
        self._learning_rate = 0.0  # of the last step
        self._rows: list[torch.Tensor] = []  # of the last step

    # set-up

    def _build_accelerator(self) -> Accelerator:
        args = self.args
        try:
            accelerator = Accelerator(
                mixed_precision=args.mixed_precision,
                log_with=args.report_to or None,
                kwargs_handlers=[
                    # Running statistics are synchronised where they are computed; position tables never change.
                    DistributedDataParallelKwargs(broadcast_buffers=False),
                    InitProcessGroupKwargs(timeout=LONGEST_WAIT),
                ],
                project_dir=str(self.output_dir),
                # Every `gradient_accumulation_steps` batches are one step, also across the end of an epoch.
                gradient_accumulation_plugin=GradientAccumulationPlugin(
                    num_steps=args.gradient_accumulation_steps, sync_with_dataloader=False
                ),
                dataloader_config=DataLoaderConfiguration(
                    use_seedable_sampler=True, data_seed=args.seed, non_blocking=args.pin_memory
                ),
                step_scheduler_with_optimizer=False,
            )
        except ValueError as error:
            raise ValueError(
                f"training.report_to={args.report_to} or training.mixed_precision={args.mixed_precision}: {error}"
            ) from error
        check_launch(accelerator.state)
        self._refuse_silent_changes(accelerator)
        use_tf32(args.tf32, accelerator.device)
        if args.cuda_graphs:
            check_launch_for_graphs(accelerator)
        return accelerator

    def _refuse_silent_changes(self, accelerator: Accelerator) -> None:
        """What Accelerate leaves out without a word, and whoever asked for it would wait for in vain."""
        device = accelerator.device.type
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.distributed_type != DistributedType.FSDP:
            raise ValueError(
                f"the launch asks for FSDP, which Accelerate does not do on the device '{device}': launch without it, as "
                "examples/accelerate/two_cpu_processes.yaml does."
            )
        if accelerator.mixed_precision == "fp16" and device == "cpu":
            raise ValueError(
                "training.mixed_precision 'fp16' needs a GPU, this run is on the CPU: take 'bf16' or 'no'."
            )
        found = {str(tracker) for tracker in accelerator.log_with}
        absent = [name for name in self.args.report_to if name not in found and name != "all"]
        if absent:
            raise ValueError(
                f"training.report_to: the package of {', '.join(absent)} is not installed: install it, or leave it out."
            )

    def _build_model(self) -> PreTrainedModel:
        set_seed(self.args.seed)
        model = AutoModelForPreTraining.from_config(build_config(self.recipe.model))
        if self.args.init_from is not None:
            model = start_from(model, self.args.init_from, self.args.init_positions)
        hooks = pretraining_hooks(model)
        if self.accelerator.distributed_type == DistributedType.FSDP:
            reason = hooks.reason_against_fsdp()
            if reason:
                raise ValueError(f"{type(model).__name__} cannot be sharded by FSDP. {reason}")
            if self.args.gradient_accumulation_steps > 1 and hooks.measures_tasks:
                raise ValueError(
                    f"training.gradient_accumulation_steps={self.args.gradient_accumulation_steps} under FSDP: "
                    f"{type(model).__name__} measures its tasks over all batches of a step outside the forward pass, where "
                    "FSDP has not gathered the weights. Raise training.batch_size instead, or train with DDP."
                )
            plugin = self.accelerator.state.fsdp_plugin
            if plugin.transformer_cls_names_to_wrap is None:
                plugin.transformer_cls_names_to_wrap = fsdp_units(model)
        if self.args.cuda_graphs:
            check_model_for_graphs(model)
        if self.args.gradient_checkpointing:
            enable_checkpointing(model)
        if self.args.torch_compile:
            balancer: Any = model.balancer if hooks.measures_tasks else None
            if balancer is not None and balancer.needs_gradients:
                raise ValueError(
                    f"training.torch_compile: task_balancing '{balancer.name}' goes back through the layers more than once, "
                    "which torch does not do with compiled ones: set one of the two otherwise."
                )
            for module in hooks.compilable_modules():
                module.compile()
        return model

    def _set_up(self) -> None:
        args = self.args
        if not args.resume and list_checkpoints(self.output_dir):
            raise ValueError(
                f"training.output_dir {self.output_dir} holds checkpoints of an earlier run: pass --resume to continue "
                "it, or name another folder."
            )
        config = build_config(self.recipe.model)
        if args.init_from is not None:
            read_start(args.init_from)  # before the data, which may take hours to prepare
        with self.accelerator.main_process_first():
            self.prepared: PreparedData = prepare_data(self.recipe.data, config, complete=True)
        self._check_evaluation()
        model = self._build_model()
        self.loader = training_loader(self.prepared, args, self.accelerator)
        optimizer = build_optimizer(model, args, self.accelerator.device)
        self.scheduler = get_scheduler(
            "constant_with_warmup" if args.lr_scheduler_type == "constant" else args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.warmup_steps,
            num_training_steps=args.max_steps,
        )
        with embedding_in_root(model):
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if args.cuda_graphs:
            self._graphs = step_graphs(args, self.accelerator, self.model, self.optimizer)
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.state.layout = {
            "num_processes": self.accelerator.num_processes,
            "batch_size": args.batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "seed": args.seed,
        }
        self.state.data = data_settings(self.recipe)
        if self.accelerator.distributed_type != DistributedType.FSDP:
            # The folder holds the weights once, as save_pretrained writes them.
            self.accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
            self.accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
        if args.report_to:
            self.accelerator.init_trackers(args.project_name, config=flat_settings(self.recipe))

    def _check_evaluation(self) -> None:
        """What is looked at every so many steps must be there before the first of them."""
        validation: Any = self.prepared.validation
        processes = self.accelerator.num_processes
        if self.args.eval_steps and validation is None:
            raise ValueError(
                "training.eval_steps needs validation data: name data.validation_split or data.validation_fraction."
            )
        if self.args.eval_steps and hasattr(validation, "__len__") and len(validation) < processes:
            raise ValueError(
                f"training.eval_steps: the validation split has {len(validation)} rows for {processes} processes: give "
                "each at least one."
            )
        if self.recipe.probe.every_steps:
            task, _ = labelled_held_out(self.prepared)
            self.recipe.probe.headline_metric(task)

    @property
    def _bare_model(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    # the run

    def run(self) -> RunState:
        self._set_up()
        if self.args.resume:
            self._resume()
        started = time.perf_counter() - self.state.seconds
        is_done = self.state.step >= self.args.max_steps
        if is_done:
            logger.info("Nothing left to do: %d of %d steps.", self.state.step, self.args.max_steps)
        progress = tqdm(
            total=self.args.max_steps,
            initial=self.state.step,
            desc="pre-training",
            unit="step",
            disable=is_done or not self.accelerator.is_local_main_process,
        )
        # Closed, the batches end their workers: after an error nothing else would before the program's end.
        with self._sigterm, progress, contextlib.closing(self._batches()) as batches:
            if self.recipe.probe.every_steps and self.state.step == 0:
                self._probe()  # the untrained encoder, to compare with
            # A model whose objective changes over training is told how far it is.
            hooks = pretraining_hooks(self._bare_model)
            while self.state.step < self.args.max_steps and not self.stop_requested:
                hooks.set_training_progress(self.state.step / self.args.max_steps)
                self._step(batches)
                self.state.seconds = time.perf_counter() - started
                progress.update()
                self._after_step(progress)
            self._finish()
        return self.state

    def _batches(self) -> Generator[Batch, None, None]:
        """Endless batches; epoch e is the permutation of seed + e, so a resumed run finds its place again."""
        loader = self.loader
        try:
            while True:
                loader = self._loader_of_epoch()
                is_empty = True
                for batch in loader:
                    is_empty = False
                    self.state.batches_in_epoch += 1
                    yield batch
                if is_empty and not self.state.batches_in_epoch:
                    raise ValueError(
                        f"the training data gave no full batch of training.batch_size={self.args.batch_size} rows: lower "
                        "it or add data."
                    )
                self.state.epoch += 1
                self.state.batches_in_epoch = 0
        finally:
            end_workers(loader)

    def _loader_of_epoch(self) -> Any:
        """The loader, in the order of the state's epoch, without the batches that were used already."""
        epoch = self.state.epoch
        self.loader.set_epoch(epoch)
        set_epoch = getattr(self.prepared.train, "set_epoch", None)
        if set_epoch is not None and hasattr(self.prepared.train, "__len__"):
            # What rows draw at random follows the epoch; the loader of several processes does not tell them.
            set_epoch(epoch, self.args.seed)
        if not self.state.batches_in_epoch:
            return self.loader
        rest = without_first(self.loader, self.state.batches_in_epoch)
        rest.set_epoch(epoch)
        return rest

    def _step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step: `gradient_accumulation_steps` batches."""
        step = self.state.step + 1
        self._learning_rate = self.scheduler.get_last_lr()[0]
        self._rows = []
        taken = [next(batches) for _ in range(self.args.gradient_accumulation_steps)]
        rows_taken = [batch.get("index") for batch in taken]
        taken = [self._inputs(batch) for batch in taken]
        if self._graphs is not None:
            self._replay(self._graphs, step, taken[0], rows_taken[0])
            taken, rows_taken = [], []  # nothing is left to do one by one
        balancer = self._balance_tasks(step, taken)
        for part, (batch, rows) in enumerate(zip(taken, rows_taken, strict=True)):
            self._seed(step, part)
            if rows is not None:
                self._rows.append(rows)
            with self.accelerator.accumulate(self.model):
                outputs = self.model(**batch)
                self._record(step, rows, outputs)
                self.accelerator.backward(outputs.loss)
                if self.accelerator.sync_gradients:
                    self._clip_gradients(step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if balancer is not None:
            balancer.end_step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
        self.state.step = step

    def _inputs(self, batch: Batch) -> Batch:
        """What of a batch the model takes: not what error messages and probes want."""
        return {name: part for name, part in batch.items() if name not in self.prepared.not_inputs}

    def _replay(self, graphs: StepGraphs, step: int, batch: Batch, rows: torch.Tensor | None) -> None:
        """The whole step by a CUDA graph, where the batch's shape has one already. What it leaves behind is read at once."""
        outputs = graphs(batch, lambda: seed_device(self._seed_of(step, 0)))
        if rows is not None:
            self._rows.append(rows)
        self._unchecked.append((step, rows, outputs.sums["loss"].clone()))
        self._grad_norm = outputs.grad_norm
        add_sums(self._window, outputs.sums)
        self._window_batches += 1

    def _seed_of(self, step: int, part: int) -> int:
        """Masks and dropout are a function of seed, step, part and process alone: there is nothing to restore."""
        return mix(self.args.seed, step, part, self.accelerator.process_index)

    def _seed(self, step: int, part: int) -> None:
        seed_step(self._seed_of(step, part), self.accelerator.device)

    def _balance_tasks(self, step: int, taken: list[Batch]) -> Any:
        """Measure the tasks over all batches of a step, where their weights or means depend on all of them.

        Returns:
            The balancer that must be told when the step ends; None where each batch can be taken by itself.
        """
        if len(taken) <= 1:
            return None
        model: Any = self._bare_model  # looked for last: it takes longer than all else here
        if not pretraining_hooks(model).measures_tasks:
            return None
        # What method and model need is known everywhere; what a batch holds, every process must be asked.
        is_certain = model.balancer.needs_first_pass or model.always_measures
        if not is_certain and not self._any_process(any(model.needs_first_pass(batch) for batch in taken)):
            return None
        totals = None
        for part, batch in enumerate(taken):
            self._seed(step, part)
            with torch.set_grad_enabled(model.balancer.needs_gradients), self.accelerator.autocast():
                measured = model.measure_tasks(**batch)
            totals = measured if totals is None else totals + measured
        model.balancer.begin_step(totals)
        return model.balancer

    def _clip_gradients(self, step: int) -> None:
        limit = self.args.max_grad_norm
        if limit is None and not self._is_due(self.args.logging_steps, step):
            return  # the norm is only wanted for the log
        limit = math.inf if limit is None else limit
        self._grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)

    def _record(self, step: int, rows: torch.Tensor | None, outputs: Any) -> None:
        parts = {"loss": outputs.loss.detach(), **(outputs.loss_parts or {})}
        add_parts(self._window, parts)
        self._window_batches += 1
        self._unchecked.append((step, rows, parts["loss"]))
        if self.accelerator.device.type == "cpu":
            self._check_finite()

    def _check_finite(self) -> None:
        if not self._unchecked:
            return
        # All at once: on a GPU every look waits for the device.
        losses = torch.stack([loss for *_, loss in self._unchecked]).tolist()
        for loss in losses:
            step, rows, _ = self._unchecked.popleft()
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss is {loss} at step {step} on {self._describe_rows(*([] if rows is None else [rows]))}"
                )

    def _describe_rows(self, *rows: torch.Tensor) -> str:
        """Where the trouble came from and what can be done: the end of an error message."""
        numbers = torch.cat(rows).tolist() if rows else "unknown"
        return (
            f"process {self.accelerator.process_index}; the batch's rows are {numbers}. The last good checkpoint is "
            f"{newest_sound_checkpoint(self.output_dir) or 'none yet'}. Look at those rows, lower "
            "training.learning_rate, or set training.max_grad_norm."
        )

    def _after_step(self, progress: tqdm) -> None:
        args, step = self.args, self.state.step
        if self._is_due(args.logging_steps, step):
            self._log_window(progress)
        # Processes must leave the loop at the same step.
        is_cheap = self.accelerator.num_processes == 1 or self.accelerator.device.type == "cpu"
        if is_cheap or self._is_due(min(args.logging_steps, AGREEMENT_STEPS), step):
            self.stop_requested = self._any_process(self._sigterm.received)
        is_best = self._validate() if self._is_due(args.eval_steps, step) else False
        if self._is_due(self.recipe.probe.every_steps, step):
            self._probe()
        if self._is_due(args.picture_steps, step):
            self._draw()
        # Last, so that the checkpoint holds everything known about its step.
        if is_best or self._is_due(args.save_steps, step):
            self._save(best=is_best)

    def _is_due(self, every: int, step: int) -> bool:
        """Whether something done `every` so many steps (0 never) is done after `step`; the last step counts always."""
        return every > 0 and (step % every == 0 or step == self.args.max_steps)

    def _any_process(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
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
        means = averages(self._window_sums(), self._window_batches, self._window_batches)
        values = {f"train/{name}": value for name, value in means.items()}
        values["train/learning_rate"] = self._learning_rate
        if self._grad_norm is not None:
            values["train/grad_norm"] = float(self._grad_norm)
        self._window, self._window_batches, self._grad_norm = {}, 0, None
        self._log(values)
        progress.set_postfix(shown_beside_progress(means), refresh=False)

    def _window_sums(self) -> dict[str, float]:
        """What was summed since the last log, the mean over processes."""
        if not self._window:
            return {}
        names = sorted(self._window)
        sums = torch.stack([self._window[name].reshape(()) for name in names])
        return dict(zip(names, self.accelerator.reduce(sums, reduction="mean").tolist(), strict=True))

    @torch.no_grad()
    def _validate(self) -> bool:
        """Log the mean validation loss, with the same rows and masks every time.

        Returns:
            Whether it is the lowest so far and to be kept as such.
        """
        self.model.eval()
        totals: dict[str, torch.Tensor] = {}
        count = 0
        for number, (rows, batch) in enumerate(validation_batches(self.prepared, self.args, self.accelerator)):
            self._seed(0, number)
            outputs = self.model(**send_to_device(self._inputs(batch), self.accelerator.device))
            parts = {"loss": outputs.loss, **(outputs.loss_parts or {})}
            add_parts(totals, parts, rows, torch.float64)
            count += rows
        self.model.train()
        if not count:
            raise ValueError("training.eval_steps: the validation stream gave fewer rows than there are processes.")
        sums = self.accelerator.reduce(torch.stack(list(totals.values())), reduction="mean").tolist()
        means = averages(dict(zip(totals, sums, strict=True)), count)
        self._log({f"validation/{name}": value for name, value in means.items()})
        loss = means["loss"]
        if not self.args.save_best or not (self.state.best_loss is None or loss < self.state.best_loss):
            return False
        self.state.best_loss, self.state.best_step = loss, self.state.step
        return True

    def _probe(self) -> None:
        """Log the online probe. The main process alone runs it; the others wait for it at their next exchange."""
        encoder = self._whole_encoder()
        if encoder is not None:
            self._log(online_probe(encoder, self.prepared, self.recipe.probe, self.accelerator.device))

    def _whole_encoder(self) -> PreTrainedModel | None:
        """The encoder for the main process; under FSDP a copy with all weights, which every process helps to gather."""
        is_main = self.accelerator.is_main_process
        if self.accelerator.distributed_type != DistributedType.FSDP:
            return cast(PreTrainedModel, self._bare_model.base_model) if is_main else None
        weights = self.accelerator.get_state_dict(self.model)
        if not is_main:
            return None
        copy = AutoModelForPreTraining.from_config(self._bare_model.config)
        copy.load_state_dict(weights)
        return cast(PreTrainedModel, copy.to(self.accelerator.device).base_model)

    def _draw(self) -> None:
        """Reconstructions and curves. Every process computes them, because losses gather; the main process writes."""
        folder = self.output_dir / "pictures"
        folder.mkdir(exist_ok=True)
        source: Any = (
            self.prepared.validation if self.prepared.validation is not None else plain_rows(self.prepared.train)
        )
        rows = [row for _, row in zip(range(8), source, strict=False)]
        batch = self.prepared.collator(rows)
        picture = folder / f"reconstruction-{self.state.step:08d}.png"
        is_main = self.accelerator.is_main_process
        draw = draw_reconstruction
        if "inputs" in batch:
            draw = functools.partial(draw_modalities, class_names=known_class_names(self.recipe.data))
        draw(self._bare_model, batch, picture if is_main else None, self.prepared.processor)
        if is_main and self.state.history:
            draw_curves(self.state.history, folder / "curves.png")

    # saving and resuming

    def _save(self, best: bool = False) -> None:
        """A sealed checkpoint of this step; `best` also keeps it as `checkpoint-best`."""
        self._check_finite()
        self._check_weights()
        final = checkpoint_folder(self.output_dir, self.state.step)
        folder = final.with_name(final.name + INCOMPLETE)
        if not final.exists() or find_problem(final) is not None:
            if self.accelerator.is_main_process:
                folder = incomplete_folder(final)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(folder / "training_state"), safe_serialization=True)
            self.state.window, self.state.window_batches = self._window_sums(), self._window_batches
            self._save_model(folder)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                write_json(folder / STATE_FILE, dataclasses.asdict(self.state))
                seal(folder, final)
        if self.accelerator.is_main_process:
            if best:
                copy_as(final, self.output_dir / BEST)
            thin_out(self.output_dir, self.args.save_total_limit, newest=final)
        self.accelerator.wait_for_everyone()

    def _check_weights(self) -> None:
        """A gradient that overflowed spoils the weights one step before the loss shows it: such weights are not saved."""
        parts = chain(self.model.parameters(), self.model.buffers())
        local = [part.to_local() if isinstance(part, DTensor) else part for part in parts]
        is_finite = torch.stack([torch.isfinite(part).all() for part in local]).all()
        if self._any_process(not is_finite):
            raise NonFiniteLossError(
                f"the weights are NaN or infinite after step {self.state.step}, although its loss was finite: the gradient "
                f"overflowed on {self._describe_rows(*self._rows)}"
            )

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
        model = self._bare_model
        check_same_model(folder, model.config)
        state = RunState(**read_state(folder))
        if state.layout != self.state.layout:
            raise ValueError(
                f"{folder} was written with {state.layout}, this run has {self.state.layout}: the data order depends on "
                "them. Resume with the former values, or start another training.output_dir."
            )
        if self.accelerator.distributed_type != DistributedType.FSDP:
            load_model(model, folder / "model.safetensors")  # into the weights where they are
        self.accelerator.load_state(str(folder / "training_state"))
        if self.accelerator.is_main_process:
            warn_of_changed_data(folder, state.data, self.state.data)
        state.interrupted, state.data = False, self.state.data
        self.state = state
        device = self.accelerator.device
        self._window = {name: torch.tensor(value, device=device) for name, value in state.window.items()}
        self._window_batches = state.window_batches
        best = self.output_dir / BEST
        if self.accelerator.is_main_process and self.args.save_best and state.best_step == state.step:
            # The run may have ended between the two copies of this checkpoint.
            if find_problem(best) is not None or read_state(best)["step"] != state.step:
                copy_as(folder, best)
        logger.info("Resumed from %s at step %d.", folder, state.step)

    def _finish(self) -> None:
        """Save the last step; a complete run also puts its model at the top of `output_dir`."""
        self.state.interrupted = self.state.step < self.args.max_steps
        self._save()
        if self.accelerator.is_main_process and not self.state.interrupted:
            last = checkpoint_folder(self.output_dir, self.state.step)
            replace_files(self.output_dir, lambda folder: _copy_model_files(last, folder))
        elif self.accelerator.is_main_process:
            logger.warning("SIGTERM: stopped and saved at step %d; --resume continues.", self.state.step)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def _copy_model_files(checkpoint: Path, folder: Path) -> None:
    """What a reader of the model needs, without what only a resumed run needs."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != MANIFEST:
            shutil.copy2(path, folder / path.name)
