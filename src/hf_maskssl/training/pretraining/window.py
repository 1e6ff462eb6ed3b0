"""Losses between two lines of the log."""

import collections
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator

from .averages import add_parts, averages
from .checkpoints import newest_sound_checkpoint
from .graphs import add_sums
from .state import NonFiniteLossError


class LossWindow:
    """Sums of a run's losses since the last log, and losses that have not been checked yet.

    On a GPU reading a loss waits for the device, so losses are checked at every log; on a CPU at once.

    Args:
        accelerator: Accelerator of the run.
        output_dir: Folder of the checkpoints that an error message names.

    Attributes:
        grad_norm: The last step's norm of the gradient, where it was measured since the last log.
    """

    def __init__(self, accelerator: Accelerator, output_dir: Path) -> None:
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.grad_norm: torch.Tensor | None = None
        self.sums: dict[str, torch.Tensor] = {}
        self.batches = 0
        self._unchecked: collections.deque[tuple[int, torch.Tensor | None, torch.Tensor]] = collections.deque()

    def add(self, step: int, rows: torch.Tensor | None, parts: Mapping[str, torch.Tensor]) -> None:
        """Add a batch's losses; `rows` are the numbers of its rows, `parts` detached, `loss` among them."""
        add_parts(self.sums, parts)
        self._added(step, rows, parts["loss"])
        if self.accelerator.device.type == "cpu":
            self.check_finite()

    def add_sums(self, step: int, rows: torch.Tensor | None, sums: Mapping[str, torch.Tensor]) -> None:
        """Add the sums of a replayed step, whose memory the next one overwrites."""
        add_sums(self.sums, sums)
        self._added(step, rows, sums["loss"].clone())

    def _added(self, step: int, rows: torch.Tensor | None, loss: torch.Tensor) -> None:
        self.batches += 1
        self._unchecked.append((step, rows, loss))

    def check_finite(self) -> None:
        """Check the losses that have not been checked yet.

        Raises:
            NonFiniteLossError: One is NaN or infinite; it names step and rows.
        """
        if not self._unchecked:
            return
        # Read together: on a GPU each read makes the CPU wait for the device.
        losses = torch.stack([loss for *_, loss in self._unchecked]).tolist()
        for loss in losses:
            step, rows, _ = self._unchecked.popleft()
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss is {loss} at step {step} on {self.describe_rows(*([] if rows is None else [rows]))}"
                )

    def reduced(self) -> dict[str, float]:
        """The sums so far, the mean over processes."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name].reshape(()) for name in names])
        return dict(zip(names, self.accelerator.reduce(sums, reduction="mean").tolist(), strict=True))

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """Averages of the losses over steps and processes, and the named norm of the gradient; the window is empty afterwards.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
        """
        self.check_finite()
        means = averages(self.reduced(), self.batches, self.batches)
        grad_norm = {} if self.grad_norm is None else {"train/grad_norm": float(self.grad_norm)}
        self.sums, self.batches, self.grad_norm = {}, 0, None
        return means, grad_norm

    def restore(self, sums: Mapping[str, float], batches: int) -> None:
        """Go on with the sums that a checkpoint holds."""
        self.sums = {name: torch.tensor(value, device=self.accelerator.device) for name, value in sums.items()}
        self.batches = batches

    def describe_rows(self, *rows: torch.Tensor) -> str:
        """The end of an error message: the rows, the last checkpoint and the remedy."""
        numbers = torch.cat(rows).tolist() if rows else "unknown"
        return (
            f"process {self.accelerator.process_index}; the batch's rows are {numbers}. The last good checkpoint is "
            f"{newest_sound_checkpoint(self.output_dir) or 'none yet'}. Look at those rows, lower "
            "training.learning_rate, or set training.max_grad_norm."
        )
