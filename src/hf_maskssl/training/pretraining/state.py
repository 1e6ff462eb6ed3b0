"""The position of a run."""

import dataclasses

from .arguments import PretrainingRecipe, learning_settings, settings_as_json


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
        updates: Updates of the weights: fewer than steps where float16 skipped some. None in checkpoints of version 0.1.
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
    updates: int | None = None

    def record(self, values: dict[str, float]) -> None:
        """Add values of the current step to the history."""
        if values and self.history and self.history[-1]["step"] == self.step:
            self.history[-1] |= values
        elif values:
            self.history.append({"step": self.step, **values})

    def latest(self, name: str) -> float | None:
        """The last logged value of `name`, or None."""
        return next((entry[name] for entry in reversed(self.history) if name in entry), None)


def first_state(recipe: PretrainingRecipe, num_processes: int) -> RunState:
    """The state before the first step, with the settings that a resumed run is compared with."""
    args = recipe.training
    return RunState(
        layout={
            "num_processes": num_processes,
            "batch_size": args.batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "seed": args.seed,
        },
        data=settings_as_json(recipe.data),
        training=learning_settings(args),
    )


class NonFiniteLossError(ValueError):
    """The loss or the weights became NaN or infinite."""
