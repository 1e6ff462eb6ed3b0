"""The gradient of one step over several batches: that of the mean over all their terms, where the model counts these."""

from collections.abc import Iterable

import torch
from accelerate.accelerator import Accelerator


class AccumulatedMean:
    """Weighs the batches of a step by their terms.

    Accelerate takes the mean of the batches' losses, each itself a mean over the terms of all processes. Where batches have
    unequally many terms, as padded texts have masked tokens, that is not the mean over all terms. How many there are in all is
    known behind the last batch alone, so the losses are weighed in relation to the first one, and the gradient at the end.

    Args:
        accelerator: Accelerator of the run.
        num_batches: Number of batches of a step.
    """

    def __init__(self, accelerator: Accelerator, num_batches: int) -> None:
        self.accelerator, self.num_batches = accelerator, num_batches
        self._counts: list[torch.Tensor] = []

    def weighed(self, loss: torch.Tensor, terms: torch.Tensor | None) -> torch.Tensor:
        """The loss of the next batch.

        Args:
            loss: Loss of the batch, a scalar.
            terms: Number of its terms on this process, a scalar; None where every batch counts alike.
        """
        if terms is None or self.num_batches == 1:
            return loss
        self._counts.append(self.accelerator.reduce(terms.detach().to(torch.float32), reduction="sum"))
        return loss * (self._counts[-1] / self._first)

    def finish(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Bring the gradient behind the last batch to that of the mean over all terms."""
        if not self._counts:
            return
        factor = self.num_batches * self._first / torch.stack(self._counts).sum().clamp(min=1)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    @property
    def _first(self) -> torch.Tensor:
        return self._counts[0].clamp(min=1)
