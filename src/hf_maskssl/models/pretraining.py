"""What a pre-training loop may ask of a model, beside `forward`: with an answer for each model that has nothing to say."""

from collections.abc import Mapping
from typing import Any

from torch import nn


class MaskedPretraining:
    """Hooks of a pre-training model, a mixin of its class (first of its bases).

    `forward` returns `loss` and `loss_parts` {name: 0-d tensor}, parts of the loss that are logged; `count/NAME` beside NAME is
    the number of terms of which NAME is the mean.

    Attributes:
        measures_tasks: Whether the loss joins several tasks by a `TaskBalancer` named `balancer`, whose weights the accumulated
            batches of one step share: then the model has `measure_tasks(**batch)`, which gives the `TaskTotals` of a batch
            with the draws that `forward` will make from the same seed.
        always_measures: Whether batches have unequally many terms, so that a step of several batches is always measured
            before the first of them is differentiated.
    """

    measures_tasks = False
    always_measures = False

    def compilable_modules(self) -> list[nn.Module]:
        """Modules that `torch.compile` may replace in training: those whose shapes are the same in every step."""
        assert isinstance(self, nn.Module)
        return [self]

    def reason_against_fsdp(self) -> str | None:
        """The reason why FSDP cannot shard this model, with what to do instead; None when FSDP can."""
        return None

    def reason_against_cuda_graphs(self) -> str | None:
        """Why steps of this model cannot be recorded and replayed; None when they can.

        Shapes must follow from those of the batch, and no value may be read by the CPU.
        """
        return None

    def set_training_progress(self, fraction: float) -> None:
        """Called before each step with the share of training that is done, for an objective that changes over training.

        What it changes must lie in tensors that it fills in place: then a replayed step sees it.
        """

    def needs_first_pass(self, batch: Mapping[str, Any]) -> bool:
        """Whether a step with this batch among others must be measured before its gradients are taken."""
        return self.always_measures


class PlainModel(MaskedPretraining):
    """The answers for a model of another package that does not derive from `MaskedPretraining`.

    Code that travels with a checkpoint cannot import this package, so the mixin is no duty.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def compilable_modules(self) -> list[nn.Module]:
        return [self.model]


def pretraining_hooks(model: nn.Module) -> MaskedPretraining:
    """The model itself where it derives from `MaskedPretraining`, otherwise what holds for one that says nothing."""
    return model if isinstance(model, MaskedPretraining) else PlainModel(model)
