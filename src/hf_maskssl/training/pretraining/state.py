"""The position of a run."""

import dataclasses

from ...files import JsonObject


@dataclasses.dataclass
class RunState:
    """The position of a run; saved with every checkpoint, so that a resumed run continues the same.

    Attributes:
        step: Optimiser steps done.
        epoch: Passes over the data finished.
        batches_in_epoch: Batches of the current pass already used (per process).
        seconds: Training time, summed over resumptions.
        best_loss, best_step: Lowest validation loss, and when it was.
        history: One dict per logged step: `step` and named values.
        window, window_batches: Sums since the last logged step, and over how many batches.
        interrupted: Whether SIGTERM or Ctrl-C ended the run.
        layout: Processes, batch size and accumulation the data order depends on.
        data: The recipe's data section, each field as JSON.
        training: The settings of the training section that decide what a step does (`learning_settings`), each as JSON.
        rows: a hash of the rows of each split (`training.digests`), known to the main process; none of a stream.
        updates: Updates of the weights: fewer than steps where float16 skipped some. None in checkpoints of version 0.1.
        row_counts: Split -> number of rows that are used; those of a stream are not counted.
        rows_left_out: Split -> number of rows that were left out of it.
        energy_kwh: Energy in kWh of the main process's machine, summed over resumptions; None where some part of the run was
            not measured (`training.cost`).
        trained_with: Names of the other parts of a model of several kinds of data, in the state of one part; else nothing.
        start: Report of what the run took from another model (`StartReport`); None of a run with random weights.
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
    training: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: dict[str, str] = dataclasses.field(default_factory=dict)
    updates: int | None = None
    row_counts: dict[str, int] = dataclasses.field(default_factory=dict)
    rows_left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    energy_kwh: float | None = None
    trained_with: list[str] = dataclasses.field(default_factory=list)
    start: JsonObject | None = None

    def record(self, values: dict[str, float]) -> None:
        """Add values of the current step to the history."""
        if values and self.history and self.history[-1]["step"] == self.step:
            self.history[-1] |= values
        elif values:
            self.history.append({"step": self.step, **values})

    def latest(self, name: str) -> float | None:
        """The last logged value of `name`, or None."""
        return next((entry[name] for entry in reversed(self.history) if name in entry), None)


class NonFiniteLossError(ValueError):
    """The loss or the weights became NaN or infinite."""
