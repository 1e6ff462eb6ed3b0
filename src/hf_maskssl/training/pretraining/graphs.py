"""Whole training steps as CUDA graphs.

A small model on a GPU waits for its kernels to be launched: MetaMAE launches well over a thousand in a step. A CUDA graph
launches all of them at once. It repeats the recording on the same memory, so everything that changes from step to
step must lie in tensors: the batch, the learning rates, and the seed of the device's random numbers, which
`torch.cuda.manual_seed` sets and `CUDAGraph.replay` hands to the kernels. The masks and the dropout of a replayed step are
therefore those that the same step has without graphs.
"""

import contextlib
import dataclasses
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import torch
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch import nn

from ...models.pretraining import pretraining_hooks
from .arguments import PretrainingArguments
from .averages import add_parts

logger = logging.getLogger(__name__)

# Number of steps of each shape before the recording, in which libraries choose kernels and the optimiser makes its state.
WARM_UP_STEPS = 3
# Number of graphs to keep; a graph takes as much memory as one step's activations where nothing else is free.
MAX_GRAPHS = 16

# Name -> tensor on the device, or a mapping of names to tensors.
Batch: TypeAlias = Mapping[str, Any]
Shapes: TypeAlias = tuple[object, ...]  # shapes of a batch


@dataclasses.dataclass
class StepOutputs:
    """The results of a step, all on the device. A replayed step overwrites those of the step before.

    Attributes:
        sums: Name -> float32 scalar, the batch's losses summed by `add_parts`; `loss` is among them.
        grad_norm: Scalar l2 norm of the gradient before clipping.
    """

    sums: dict[str, torch.Tensor]
    grad_norm: torch.Tensor


Step = Callable[[], StepOutputs]


class Recorder(Protocol):
    """Runs steps, and records them to be replayed."""

    def run(self, step: Step) -> StepOutputs:
        """Run the step now."""

    def record(self, step: Step) -> tuple[Callable[[], None], StepOutputs]:
        """Record the step without running it; returns a function that replays it, and the tensors of its outputs."""


class CudaRecorder:
    """CUDA graphs that share memory: they are never replayed at the same time, and outputs are read in between.

    Every step runs on one stream of its own until it is recorded there. Otherwise the backward pass would wait for the
    default stream, where the parameters were used first, and a recorded stream must not depend on others.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, step: Step) -> StepOutputs:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = step()
        current.wait_stream(self.stream)
        return outputs

    def record(self, step: Step) -> tuple[Callable[[], None], StepOutputs]:
        gc.collect()  # frees a former step's autograd graph, which may be a reference cycle
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        # Only this thread's errors count: the data loader's thread may pin memory meanwhile.
        recording = torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local")
        try:
            with recording:
                outputs = step()
        except Exception:
            torch.cuda.set_stream(current)  # `torch.cuda.graph` stays on its own when recording fails
            raise
        current.wait_stream(self.stream)
        return graph.replay, outputs


class DeviceRates:
    """The learning rates of an optimiser as tensors, for the duration of a step.

    Between steps they are numbers, which the schedule sets and checkpoints hold, so that a run may go on with graphs or
    without.

    Args:
        optimizer: Optimizer whose groups have `lr` and `capturable`.
        device: Device of the parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer = optimizer
        self.rates = [torch.zeros((), dtype=torch.float32, device=device) for _ in optimizer.param_groups]
        self._numbers: list[float | None] = [None] * len(self.rates)

    def update(self) -> None:
        """Copy the groups' present learning rates into the tensors."""
        for place, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self._numbers[place]:
                self._numbers[place] = group["lr"]
                self.rates[place].fill_(group["lr"])

    @contextlib.contextmanager
    def lent(self, capturable: bool) -> Iterator[None]:
        """A context in which the optimiser reads the tensors; `capturable` must be true while recording."""
        groups = self.optimizer.param_groups
        kept = [(group["lr"], group["capturable"]) for group in groups]
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"], group["capturable"] = rate, capturable
            yield
        finally:
            for group, (rate, was_capturable) in zip(groups, kept, strict=True):
                group["lr"], group["capturable"] = rate, was_capturable


@dataclasses.dataclass
class _Recorded:
    inputs: Batch
    replay: Callable[[], None]
    outputs: StepOutputs


class StepGraphs:
    """Training steps that run a few times for each shape of batch, then are recorded, then replayed.

    All steps are real ones: those before the recording run as without graphs, and recording itself changes nothing. Shapes
    beyond the first `max_graphs` run without a graph, after one warning.

    Args:
        step: Function that takes a whole optimiser step on a batch: forward, backward, clipping, update, gradients dropped.
        optimizer: Optimizer of `step`.
        recorder: Recorder that runs and records steps.
        device: Device of weights and batches.
    """

    def __init__(
        self,
        step: Callable[[Batch], StepOutputs],
        optimizer: torch.optim.Optimizer,
        recorder: Recorder,
        device: torch.device,
        warm_up_steps: int = WARM_UP_STEPS,
        max_graphs: int = MAX_GRAPHS,
    ) -> None:
        self.step = step
        self.recorder = recorder
        self.rates = DeviceRates(optimizer, device)
        self.warm_up_steps, self.max_graphs = warm_up_steps, max_graphs
        self.num_replayed = self.num_run = 0
        self._seen: dict[Shapes, int] = {}
        self._recorded: dict[Shapes, _Recorded] = {}
        self._is_full = False

    def __call__(self, batch: Batch, seed: Callable[[], None]) -> StepOutputs:
        """Take a step.

        Args:
            batch: Name -> tensor on the device, or dicts of such.
            seed: Function that seeds the device's random numbers; called right before the step draws any.

        Returns:
            The results of the step, to be read or copied before the next one.

        Raises:
            ValueError: The step cannot be recorded.
        """
        self.rates.update()
        key = shapes_of(batch)
        recorded = self._recorded.get(key)
        if recorded is None and self._is_to_be_recorded(key):
            recorded = self._record(batch)
            self._recorded[key] = recorded
        elif recorded is not None:
            copy_into(recorded.inputs, batch)
        if recorded is None:
            self.num_run += 1
            seed()
            with self.rates.lent(capturable=False):
                return self.recorder.run(lambda: self.step(batch))
        self.num_replayed += 1
        seed()
        recorded.replay()
        return recorded.outputs

    @property
    def num_graphs(self) -> int:
        """Number of shapes that were recorded."""
        return len(self._recorded)

    def _is_to_be_recorded(self, key: Shapes) -> bool:
        seen = self._seen.get(key, 0)
        self._seen[key] = seen + 1
        if seen < self.warm_up_steps:
            return False
        if len(self._recorded) < self.max_graphs:
            return True
        if not self._is_full:
            self._is_full = True  # warns once
            logger.warning(
                "training.cuda_graphs: batches have more shapes than the %d graphs that are kept; those of other shapes run "
                "without a graph. training.data_on_device gives all batches one shape.",
                self.max_graphs,
            )
        return False

    def _record(self, batch: Batch) -> _Recorded:
        inputs = copy_of(batch)
        try:
            with self.rates.lent(capturable=True):
                replay, outputs = self.recorder.record(lambda: self.step(inputs))
        except Exception as error:
            cause = error.__context__ or error
            raise ValueError(
                "training.cuda_graphs: this step cannot be recorded: "
                f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else 'no message'}. "
                "Set training.cuda_graphs to false."
            ) from error
        return _Recorded(inputs, replay, outputs)


class TrainingStep:
    """Forward, backward, clipping and update on one batch, in the order and with the calls of a step without graphs.

    The gradient's norm is computed in every step, because a recorded step does not know when a line is logged.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: AcceleratedOptimizer, max_grad_norm: float | None
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm

    def __call__(self, batch: Batch) -> StepOutputs:
        outputs = self.model(**batch)
        sums: dict[str, torch.Tensor] = {}
        add_parts(sums, {"loss": outputs.loss.detach(), **(outputs.loss_parts or {})})
        self.accelerator.backward(outputs.loss)
        if self.max_grad_norm is None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
        else:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutputs(sums, norm)


def step_graphs(
    args: PretrainingArguments, accelerator: Accelerator, model: nn.Module, optimizer: AcceleratedOptimizer
) -> StepGraphs:
    """The steps of a run with `training.cuda_graphs`, for a prepared model and optimiser."""
    step = TrainingStep(accelerator, model, optimizer, args.max_grad_norm)
    return StepGraphs(step, optimizer.optimizer, CudaRecorder(accelerator.device), accelerator.device)


def check_launch_for_graphs(accelerator: Accelerator) -> None:
    """Check that steps of this process can be recorded.

    Raises:
        ValueError: The process is not on a CUDA GPU, is one of several, or scales losses for fp16.
    """
    device = accelerator.device.type
    if device != "cuda":
        raise ValueError(
            f"training.cuda_graphs needs a CUDA GPU, this run is on the device '{device}': set it to false."
        )
    if accelerator.num_processes > 1 or accelerator.distributed_type != DistributedType.NO:
        raise ValueError(
            f"training.cuda_graphs works on one process without a wrapper, this run has {accelerator.num_processes} and "
            f"{accelerator.distributed_type.value}: set it to false, or launch one process with plain `python`."
        )
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise ValueError(
            f"training.cuda_graphs works with training.mixed_precision 'no' and 'bf16', this run has "
            f"'{accelerator.mixed_precision}', whose loss scaling looks at the gradients in every step: set one otherwise."
        )


def check_model_for_graphs(model: nn.Module) -> None:
    """Check that steps of a model can be recorded: the batch's shapes must decide all others.

    Raises:
        ValueError: They cannot.
    """
    reason = pretraining_hooks(model).reason_against_cuda_graphs()
    if reason:
        raise ValueError(f"training.cuda_graphs: {type(model).__name__} cannot be recorded. {reason} Set it to false.")


def add_sums(window: dict[str, torch.Tensor], sums: Mapping[str, torch.Tensor]) -> None:
    """Add one batch's sums to those of a window, in one kernel; `window` keeps tensors of its own."""
    new = {name: value.clone() for name, value in sums.items() if name not in window}
    known = [name for name in sums if name in window]
    if known:
        torch._foreach_add_([window[name] for name in known], [sums[name] for name in known])
    window |= new


def shapes_of(batch: Batch) -> Shapes:
    """The properties of a batch on which a recorded step depends: names, shapes and types, in the order of the batch."""
    return tuple(
        (name, shapes_of(part) if isinstance(part, Mapping) else (tuple(part.shape), part.dtype))
        for name, part in batch.items()
    )


def copy_of(batch: Batch) -> Batch:
    """The batch in memory of its own."""
    return {name: copy_of(part) if isinstance(part, Mapping) else part.clone() for name, part in batch.items()}


def copy_into(target: Batch, batch: Batch) -> None:
    """Copy the values of `batch` into the tensors of `target`, a batch of the same shapes."""
    for name, part in batch.items():
        if isinstance(part, Mapping):
            copy_into(target[name], part)
        else:
            target[name].copy_(part, non_blocking=True)
