"""Random numbers of rows that are equal in every process."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch


@runtime_checkable
class DrawnByEpoch(Protocol):
    """Rows, or their preparer, that are drawn anew in every epoch."""

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on for this epoch of a run with this seed; None keeps the seed set before."""


class RowDraws:
    """Random numbers for rows that are drawn anew in every epoch: views of pictures, masks of words.

    They depend on the seed, the epoch, the row and the run's seed alone, so that a resumed run, and any number of workers and
    processes, draws the same. Epoch and run lie in shared memory, where worker processes that live on see them change. Rows
    of a stream have no epoch here and are drawn from torch's random numbers.

    Args:
        seed: Seed that all draws depend on, such as `data.split_seed`.
        is_stream: Whether rows come from a stream.
    """

    def __init__(self, seed: int, is_stream: bool = False) -> None:
        self.seed = seed
        self.is_stream = is_stream
        self.epoch_and_run = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, run_seed: int | None = None) -> None:
        """Draw from now on for this epoch; None keeps the run's seed, since Accelerate's loader passes the epoch alone."""
        run = self.epoch_and_run[1] if run_seed is None else run_seed
        self.epoch_and_run.copy_(torch.tensor([epoch, run]))

    def generator(self, index: int) -> np.random.Generator:
        """The random numbers of one row."""
        if self.is_stream:
            return np.random.default_rng(int(torch.randint(2**62, (1,))))
        epoch, run_seed = self.epoch_and_run.tolist()
        return np.random.default_rng([self.seed, epoch, index, run_seed])
