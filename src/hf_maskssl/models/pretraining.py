"""Hooks by which a pre-training loop asks a model more than `forward`, with an answer for models that define none."""

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


class MaskedPretraining:
    """Hooks of a pre-training model, a mixin of its class (first of its bases).

    `forward` returns `loss` and `loss_parts` {name: 0-d tensor}, parts of the loss that are logged; `count/NAME` beside NAME is
    the number of terms of which NAME is the mean.
    """

    # The losses are means over all processes already and do not use Trainer's number of items: with accumulated batches Trainer
    # averages the batches' losses.
    accepts_loss_kwargs = False

    def compilable_modules(self) -> list[nn.Module]:
        """Modules that `torch.compile` may replace in training: those whose shapes are the same in every step."""
        assert isinstance(self, nn.Module)
        return [self]

    def reason_against_fsdp(self) -> str | None:
        """The reason why FSDP cannot shard this model, with what to do instead; None when FSDP can."""
        return None

    def reason_against_cuda_graphs(self) -> str | None:
        """The reason why steps of this model cannot be recorded and replayed; None when they can.

        Shapes must follow from those of the batch, and no value may be read by the CPU.
        """
        return None

    def reason_against_reconstruction(self) -> str | None:
        """The reason why the model predicts nothing of its input, to draw or to fill holes with; None where it does."""
        return None

    @property
    def parts(self) -> dict[str, PreTrainedModel]:
        """Name -> pre-training model of each part, of a model that has several; each is saved in a folder of its own, too."""
        return {}

    def set_training_progress(self, fraction: float) -> None:
        """Take note, before each step, of the share of training that is done, for an objective that changes over training.

        The changes must lie in tensors that it fills in place, so that a replayed step sees them.
        """

    def loss_terms(self, outputs: ModelOutput) -> torch.Tensor | None:
        """The number of this process's terms, a scalar, of those of all processes that `loss` is the mean of; None where each
        batch of a step counts alike.

        Args:
            outputs: Output of `forward`, with a loss.
        """
        return None

    def warm_start(self, name: str, positions: Literal["same", "drop"]) -> PreTrainedModel | None:
        """Start from the weights of another model instead of random ones.

        Args:
            name: Hub name or folder of the other model.
            positions: Rule for position embeddings: "same" needs them equal to this model's, "drop" begins without them.

        Returns:
            The model to train, which may be another object; None where the method knows no model to start from.

        Raises:
            OSError: There is no model of that name.
            ValueError: The other model does not fit.
        """
        return None


class PlainModel(MaskedPretraining):
    """The answers for a model of another package that does not derive from `MaskedPretraining`.

    Code that travels with a checkpoint cannot import this package, so deriving from the mixin is optional.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def compilable_modules(self) -> list[nn.Module]:
        return [self.model]


def pretraining_hooks(model: nn.Module) -> MaskedPretraining:
    """The model itself where it derives from `MaskedPretraining`, otherwise the default answers."""
    return model if isinstance(model, MaskedPretraining) else PlainModel(model)
