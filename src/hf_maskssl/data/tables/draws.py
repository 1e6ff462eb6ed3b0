"""Random numbers of rows that are equal in every process."""

import zlib
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from datasets import IterableDataset


@runtime_checkable
class DrawnByEpoch(Protocol):
    """Rows, or their preparer, that are drawn anew in every epoch."""

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on for this epoch of a run with this seed; None keeps the seed set before."""


# What prepares the rows of a stream, where it draws: the stream itself cannot be asked for it.
_DRAWN_STREAMS: WeakKeyDictionary[IterableDataset, DrawnByEpoch] = WeakKeyDictionary()


def remember_drawn(stream: IterableDataset, prepare: DrawnByEpoch) -> None:
    """Let `tell_epoch` find what prepares the rows of a stream."""
    _DRAWN_STREAMS[stream] = prepare


def tell_epoch(rows: object, epoch: int, seed: int) -> None:
    """Let rows, or a stream of them, draw from now on what belongs to this epoch of a run with this seed, if they draw."""
    drawn = _DRAWN_STREAMS.get(rows) if isinstance(rows, IterableDataset) else rows
    if isinstance(drawn, DrawnByEpoch):
        drawn.set_epoch(epoch, seed)


class RowDraws:
    """Random numbers for rows that are drawn anew in every epoch: views of pictures, masks of words.

    They depend on the seed, the epoch, the row and the run's seed alone, so that a resumed run, and any number of workers and
    processes, draws the same. Epoch and run lie in shared memory, where worker processes that live on see them change. The
    number of a streamed row depends on who reads it: its content stands for it there, so that equal rows draw the same.

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

    def generator(self, index: int, *content: np.ndarray) -> np.random.Generator:
        """The random numbers of one row.

        Args:
            index: Its number in the split.
            content: Arrays of any shape and type that the row holds, by which a streamed row is known.
        """
        epoch, run_seed = self.epoch_and_run.tolist()
        if self.is_stream:
            index = 0
            for values in content:
                index = zlib.crc32(np.ascontiguousarray(values).tobytes(), index)
        return np.random.default_rng([self.seed, epoch, index, run_seed])
