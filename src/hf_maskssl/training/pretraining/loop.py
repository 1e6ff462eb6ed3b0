"""The one pre-training loop: any model whose forward returns `loss` and `loss_parts`, on one process or many."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from transformers import PreTrainedModel

from ...checkpoint_folders import RECIPE_FILE
from ...data.preparation import PreparedData, prepare_data
from ...data.tables.report import REPORT_FILE
from ...files import writable_folder, write_json, write_whole
from ...locks import FolderLock
from ...models.pretraining import pretraining_hooks
from ...recipes import build_config
from ...terminal import MovingLine, one_voice
from ..cost import EnergyMeter
from .accumulating import AccumulatedMean
from .arguments import PretrainingArguments, PretrainingRecipe, effective_recipe, flat_settings
from .balancing import balance_tasks
from .batches import Batch, endless_batches, training_loader
from .building import accepted_deprecation, build_accelerator, build_model, build_optimizer, build_scheduler
from .checkpoints import refuse_former_run
from .console import say_end, say_look, say_start, say_values, weightiest
from .graphs import StepGraphs, step_graphs
from .resuming import note_settings, resume
from .saving import finish, save
from .seeds import mix, seed_device, seed_step
from .sharding import embeddings_in_root
from .signals import StopSignals
from .start_report import START_FILE
from .starting import find_start, note_start
from .state import RunState
from .watching import Watcher, recipe_watchers
from .window import LossWindow

logger = logging.getLogger(__name__)

# Number of steps between agreements on whether to stop, on GPUs: agreeing makes the CPU wait for the device.
AGREEMENT_STEPS = 10
# (folder, recipe, state so far) -> writes README.md
CardWriter = Callable[[Path, PretrainingRecipe, RunState], None]


def pretrain(
    recipe: PretrainingRecipe, write_card: CardWriter | None = None, watchers: Sequence[Watcher] | None = None
) -> RunState:
    """Run a recipe from its data to a folder that `AutoModel.from_pretrained` opens.

    Args:
        recipe: The run.
        write_card: Function called on the main process for every checkpoint and at the end.
        watchers: Watchers of the run; None means `recipe_watchers(recipe)`.

    Returns:
        The final state; `interrupted` when SIGTERM or Ctrl-C ended the run early (everything is saved then).

    Raises:
        ValueError: The recipe, the data or the output folder cannot work; `NonFiniteLossError` when
            training diverges.
    """
    return Pretrainer(recipe, write_card, watchers).run()


class Pretrainer:
    """One run. The methods stand in the order of their calls.

    Attributes:
        recipe, args, accelerator, output_dir: Settings, processes and folder of the run.
        prepared, model, optimizer, scheduler: Parts that `run` sets up; the model as Accelerate has wrapped it.
        state: Position of the run, saved with every checkpoint.
        window: Losses since the last line of the log.
        parameters: Number of the model's parameters, and of those that are trained; `run` sets them.
        signals: Handlers of SIGTERM and Ctrl-C, while the run trains.
        energy: Meter of the energy, on the main process.
        rows: Numbers of the rows of the last step's batches.
        write_card, watchers: Arguments of `pretrain`.
    """

    def __init__(
        self,
        recipe: PretrainingRecipe,
        write_card: CardWriter | None = None,
        watchers: Sequence[Watcher] | None = None,
    ) -> None:
        if recipe.model.get("mask_ratio") == "auto":
            raise ValueError(
                "model.mask_ratio: auto is chosen by hf_maskssl.training.with_mask_ratio(recipe), as hf-maskssl pretrain does, "
                "before the run"
            )
        self.recipe = recipe
        self.args: PretrainingArguments = recipe.training
        self.write_card = write_card
        self.watchers = list(recipe_watchers(recipe) if watchers is None else watchers)
        self.output_dir = writable_folder(Path(self.args.output_dir), "training.output_dir")
        self.accelerator: Accelerator = build_accelerator(self.args, self.output_dir)
        self.lock = FolderLock(self.output_dir, "training.output_dir", self.accelerator.state)
        self.state = RunState()
        self.window = LossWindow(self.accelerator, self.output_dir)
        self.rows: list[torch.Tensor] = []
        self.parameters = (0, 0)
        self.stop_requested = False  # the same on all processes
        self.signals = StopSignals()
        self.energy = EnergyMeter(self.accelerator.is_main_process)
        self._energy_before: float | None = 0.0  # kWh of the run that is resumed; None where it was not measured
        self._graphs: StepGraphs | None = None  # None without training.cuda_graphs
        self._learning_rate = 0.0  # rate of the last step

    def _set_up(self) -> None:
        args = self.args
        if not args.resume:
            refuse_former_run(self.output_dir)
        start = find_start(self)
        with self.accelerator.main_process_first():
            self.prepared: PreparedData = prepare_data(
                self.recipe.data,
                build_config(self.recipe.model),
                complete=True,
                former=None if start is None else start.processor,
                keeps_statistics=args.init_statistics == "keep",
            )
        for watcher in self.watchers:
            watcher.check(self)
        model = build_model(self.recipe, self.accelerator, start, self.prepared.processor)
        self.parameters = model.num_parameters(), model.num_parameters(only_trainable=True)
        self.loader = training_loader(self.prepared, args, self.accelerator)
        optimizer = build_optimizer(model, args, self.accelerator.device)
        self.scheduler = build_scheduler(args, optimizer)
        with embeddings_in_root(model), accepted_deprecation():
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if args.cuda_graphs:
            self._graphs = step_graphs(args, self.accelerator, self.model, self.optimizer)
        note_settings(self)
        note_start(self, start)

    def _begin(self) -> None:
        """Open the trackers and write what the run works with, once nothing refuses it: until then an earlier run's stay."""
        if self.args.report_to:
            self.accelerator.init_trackers(self.args.project_name, config=flat_settings(self.recipe))
        if self.accelerator.is_main_process:
            if self.state.start is not None:
                write_json(self.output_dir / START_FILE, self.state.start)
            write_json(self.output_dir / REPORT_FILE, self.prepared.report.to_json())
            text = effective_recipe(self.recipe)
            write_whole(self.output_dir / RECIPE_FILE, lambda path: path.write_text(text, encoding="utf-8"))

    @property
    def bare_model(self) -> PreTrainedModel:
        """The model itself, without Accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def run(self) -> RunState:
        """Train to the last step, or until SIGTERM, Ctrl-C or an error ends the run."""
        with one_voice(self.args.quiet), self.lock:
            self._set_up()
            if self.args.resume:
                resume(self)
            self._begin()
            say_start(self)
            state = self._train()
            say_end(self)
            return state

    def time_steps(self, steps: int) -> list[float]:
        """Seconds of each of the first steps of a run; nothing is saved."""
        seconds = []
        with one_voice(self.args.quiet), self.lock:
            self._set_up()
            source = endless_batches(self.loader, self.prepared, self.args, self.state)
            with contextlib.closing(source) as batches:
                for _ in range(steps):
                    started = time.perf_counter()
                    self._step(batches)
                    self.window.check_finite()  # reads the loss, so waits for the device
                    seconds.append(time.perf_counter() - started)
        self.accelerator.end_training()
        return seconds

    def _train(self) -> RunState:
        started = time.perf_counter() - self.state.seconds
        # Closing the iterator ends the loader's workers, which after an error would otherwise live as long as the program.
        source = endless_batches(self.loader, self.prepared, self.args, self.state)
        self._energy_before = self.state.energy_kwh if self.state.step else 0.0
        if self.state.step >= self.args.max_steps:
            logger.info("Nothing left to do: %d of %d steps.", self.state.step, self.args.max_steps)
        line = MovingLine("step", self.args.max_steps, self.state.step)
        with self.signals, self.energy, line as progress, contextlib.closing(source) as batches:
            if self.state.step == 0:
                for watcher in self.watchers:
                    if watcher.at_start:
                        self._look(watcher)
            # The objective of some models changes over training.
            hooks = pretraining_hooks(self.bare_model)
            while self.state.step < self.args.max_steps and not self.stop_requested:
                hooks.set_training_progress(self.state.step / self.args.max_steps)
                self._step(batches)
                self.state.seconds = time.perf_counter() - started
                progress.update()
                self._after_step(progress)
            finish(self)
        return self.state

    def _step(self, batches: Iterator[Batch]) -> None:
        """One optimiser step: `gradient_accumulation_steps` batches."""
        step = self.state.step + 1
        self._learning_rate = float(self.scheduler.get_last_lr()[0])
        self.rows = []
        taken = [next(batches) for _ in range(self.args.gradient_accumulation_steps)]
        rows_taken = [batch.get("index") for batch in taken]
        taken = [self.inputs(batch) for batch in taken]
        if self._graphs is not None:
            self._replay(self._graphs, step, taken[0], rows_taken[0])
            taken, rows_taken = [], []  # the graph has taken the whole step
        balancer, mean = balance_tasks(self, step, taken), AccumulatedMean(self.accelerator, len(taken))
        hooks = pretraining_hooks(self.bare_model)
        for part, (batch, rows) in enumerate(zip(taken, rows_taken, strict=True)):
            self.seed(step, part)
            if rows is not None:
                self.rows.append(rows)
            with self.accelerator.accumulate(self.model):
                outputs = self.model(**batch)
                self.window.add(step, rows, {"loss": outputs.loss.detach(), **(outputs.loss_parts or {})})
                self.accelerator.backward(mean.weighed(outputs.loss, hooks.loss_terms(outputs)))
                if self.accelerator.sync_gradients:
                    mean.finish(self.model.parameters())
                    self._clip_gradients(step)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if balancer is not None:
            balancer.end_step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
        self.state.step = step

    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the model takes, without entries for error messages and probes."""
        return {name: part for name, part in batch.items() if name not in self.prepared.not_inputs}

    def seed(self, step: int, part: int, set_seed: Callable[[int, torch.device], None] = seed_step) -> None:
        """Seed masks and dropout by seed, step, part and process alone: a resumed run has no generator to restore for them."""
        set_seed(mix(self.args.seed, step, part, self.accelerator.process_index), self.accelerator.device)

    def _replay(self, graphs: StepGraphs, step: int, batch: Batch, rows: torch.Tensor | None) -> None:
        """Take the whole step by a CUDA graph, where the batch's shape has one already."""
        outputs = graphs(batch, lambda: self.seed(step, 0, seed_device))
        if rows is not None:
            self.rows.append(rows)
        self.window.grad_norm = outputs.grad_norm
        self.window.add_sums(step, rows, outputs.sums)

    def _clip_gradients(self, step: int) -> None:
        limit = self.args.max_grad_norm
        if limit is None and not self.is_due(self.args.logging_steps, step):
            return  # only the log needs the norm
        self.window.grad_norm = self.accelerator.clip_grad_norm_(
            self.model.parameters(), math.inf if limit is None else limit
        )

    def _after_step(self, progress: MovingLine) -> None:
        args, step = self.args, self.state.step
        if self.is_due(args.logging_steps, step):
            self._log_window(progress)
        # Processes must leave the loop at the same step.
        is_cheap = self.accelerator.num_processes == 1 or self.accelerator.device.type == "cpu"
        if is_cheap or self.is_due(min(args.logging_steps, AGREEMENT_STEPS), step):
            self.stop_requested = self.any_process(self.signals.received is not None)
        for watcher in self.watchers:
            if self.is_due(watcher.every, step):
                self._look(watcher)
        # The checkpoint comes last, so that it holds everything known about its step.
        is_best = args.save_best and self.state.best_step == step
        if is_best or self.is_due(args.save_steps, step):
            save(self, best=is_best)

    def _look(self, watcher: Watcher) -> None:
        values = watcher.look(self)
        self.log(values)
        say_look(self, values)

    def _log_window(self, progress: MovingLine) -> None:
        means, grad_norm = self.window.take()
        values = {f"train/{name}": value for name, value in means.items()}
        self.log(values | {"train/learning_rate": self._learning_rate} | grad_norm)
        progress.tell(weightiest(means))

    def note_energy(self) -> None:
        """Write the energy that the run has taken so far into the state."""
        measured, before = self.energy.kilowatt_hours(), self._energy_before
        self.state.energy_kwh = None if measured is None or before is None else before + measured

    def log(self, values: dict[str, float]) -> None:
        """Add values of the current step to the history and the trackers."""
        self.state.record(values)
        say_values(self, values)
        if values and self.args.report_to:
            self.accelerator.log(values, step=self.state.step)

    def is_due(self, every: int, step: int) -> bool:
        """Whether something done every `every` steps (0 never) is done after `step`; the last step counts always."""
        return every > 0 and (step % every == 0 or step == self.args.max_steps)

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in some process; every process must ask."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, reduction="sum").item() > 0)
