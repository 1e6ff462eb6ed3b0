"""Windows of sounds, counted in the frames of their spectrograms, and the sounds that a model does not hear whole."""

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ...models.standardization import without_invalid
from ..text.texts import row_place
from .caching import cached_map
from .columns import undecoded
from .raw_files import Cell, holds_files, with_files
from .rows import Column, Rows
from .sounds import native_waveform, read_part, read_waveform
from .step_readers import StepReader
from .windows import Windows

KEPT_BYTES = 2**28  # of whole sounds that a process keeps, since windows of one sound come at different times
FACTS_VERSION = 1  # part of the cache key of `SoundFacts`

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoundWindows(Windows):
    """The cut of sounds into windows, whose steps are the frames of the spectrogram.

    Frame f is the samples from `f * hop_length` to before `f * hop_length + frame_length`. The last frame of a sound is the first
    one that reaches its end, so that every sample lies in a frame.

    Attributes:
        sampling_rate: Samples per second of waveforms that are plain numbers.
        wanted_rate: Samples per second that frames are made of.
        frame_length: Samples in a frame.
        hop_length: Samples from one frame to the next.
        num_proc: Number of processes that look at the sounds; None means this one alone.
    """

    sampling_rate: int = 0
    wanted_rate: int = 0
    frame_length: int = 1
    hop_length: int = 1
    num_proc: int | None = None

    def reader(self, dataset: Dataset, split: str, numbers: np.ndarray | None = None) -> "SoundReader":
        return SoundReader(dataset, self, split, numbers)

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Numbers of samples (n,) int64 -> the frames (n,) int64 in which all of them lie, at least 1."""
        return 1 + np.maximum(0, -(-(samples - self.frame_length) // self.hop_length))


@dataclass(frozen=True)
class SoundFacts:
    """A map from a batch of sounds to the number of their samples, and whether any of them is missing.

    Sounds are opened at their own rate: resampling is the slow part.
    """

    windows: SoundWindows
    split: str
    numbers: np.ndarray | None = None

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        (column,) = self.windows.columns
        samples, is_holed = [], []
        for value, index in zip(batch[column], indices, strict=True):
            try:
                waveform, rate = _native(value, self.windows.sampling_rate)
            except ValueError as error:
                where = row_place(self.split, index if self.numbers is None else int(self.numbers[index]), column)
                raise ValueError(f"{where}: {with_files(error, [value])}") from error
            samples.append(-(-len(waveform) * self.windows.wanted_rate // rate))  # as `resample_poly` rounds
            is_holed.append(bool(np.isnan(without_invalid(waveform, self.windows.invalid_value)).any()))
        return {"samples": np.array(samples, dtype=np.int64), "is_holed": np.array(is_holed, dtype=bool)}

    def description(self) -> str:
        """All that decides the result, as text."""
        windows = self.windows
        return json.dumps(
            [FACTS_VERSION, windows.columns, windows.sampling_rate, windows.wanted_rate, windows.invalid_value]
        )


class SoundReader(StepReader):
    """The samples of windows of sounds. Of a WAV file at the wanted rate only these are read; other sounds are opened whole, and
    those that were read last are kept.

    Args:
        dataset: Raw rows, one a sound.
        windows: Cut into windows.
        split: Name of the split, for messages.
        numbers: Number (n,) int64 that each row had before some were left out, for messages; None where none were.
    """

    def __init__(self, dataset: Dataset, windows: SoundWindows, split: str, numbers: np.ndarray | None = None) -> None:
        (self.column,) = windows.columns
        self.windows, self.split, self.numbers = windows, split, numbers
        rows = undecoded(dataset.select_columns([self.column]), [self.column])
        assert isinstance(rows, Dataset), "streams are refused"
        is_file = holds_files(rows.features[self.column])
        self.rows = rows if is_file else rows.with_format("numpy", dtype=np.float64)
        self._facts: Dataset | None = None
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._kept_bytes = 0

    def samples(self) -> np.ndarray:
        """(rows,) int64, the samples of each sound at the wanted rate.

        Raises:
            ValueError: A sound that cannot be opened; the error names split, row and column.
        """
        return self._fact("samples").astype(np.int64)

    def lengths(self) -> np.ndarray:
        return self.windows.frames(self.samples())

    def holed(self) -> np.ndarray:
        return self._fact("is_holed").astype(bool)

    def steps(self, name: str, row: int, start: int, stop: int) -> dict[str, object]:
        """The samples of the frames from `start` to before `stop`, {"array": (samples,) float64, "sampling_rate"}."""
        return {"array": self._part(row, start, stop), "sampling_rate": self.windows.wanted_rate}

    def seen(self, row: int, start: int, stop: int) -> np.ndarray:
        """(stop - start,) bool, whether no sample of each frame is missing."""
        part = self._part(row, start, stop)
        missing = np.concatenate([[0], np.cumsum(np.isnan(without_invalid(part, self.windows.invalid_value)))])
        firsts = np.minimum(np.arange(stop - start) * self.windows.hop_length, len(part))
        ends = np.minimum(firsts + self.windows.frame_length, len(part))
        return np.asarray(missing[ends] == missing[firsts])

    def _fact(self, name: str) -> np.ndarray:
        if not len(self.rows):  # of which `map` makes no columns
            return np.zeros(0, dtype=np.int64)
        if self._facts is None:
            facts = SoundFacts(self.windows, self.split, self.numbers)
            self._facts = cached_map(self.rows, facts, facts.description(), self.windows.num_proc)
        return np.asarray(self._facts.with_format("numpy")[name][:])

    def _part(self, row: int, start: int, stop: int) -> np.ndarray:
        """(samples,) float64 of the frames from `start` to before `stop`, at the wanted rate."""
        first = start * self.windows.hop_length
        end = (stop - 1) * self.windows.hop_length + self.windows.frame_length
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row][first:end]
        cell: Cell = self.rows[row][self.column]
        part = read_part(cell, self.windows.wanted_rate, first, end)
        return self._whole(row, cell)[first:end] if part is None else part

    def _whole(self, row: int, cell: Cell) -> np.ndarray:
        """(samples,) float64 at the wanted rate, which are kept."""
        waveform = read_waveform(cell, self.windows.sampling_rate, self.windows.wanted_rate)
        self._kept[row] = waveform
        self._kept_bytes += waveform.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return waveform


def tell_of_cut_sounds(reader: SoundReader, covered: int) -> int:
    """Warn of the sounds that are longer than what the model reads, whose ends are left out.

    Args:
        reader: Reader of the split.
        covered: Samples that the model reads.

    Returns:
        The number of such sounds.
    """
    samples = reader.samples()
    cut = np.maximum(samples - covered, 0)
    if cut.any():
        logger.warning(
            "%s split: %d of %d sounds are longer than the %.3g s that the model reads, so their ends are left out, %.2g %% of "
            "all that is recorded; data.window reads sounds whole, data.longer 'error' refuses such",
            reader.split,
            np.count_nonzero(cut),
            len(samples),
            covered / reader.windows.wanted_rate,
            100 * cut.sum() / samples.sum(),
        )
    return int(np.count_nonzero(cut))


def _native(value: Cell, sampling_rate: int) -> tuple[np.ndarray, int]:
    """The samples (n,) of a sound at their own rate, and that rate.

    Raises:
        ValueError: Missing, unreadable, or not a waveform.
    """
    if isinstance(value, dict | str | bytes):
        return native_waveform(value)
    return read_waveform(value, sampling_rate, sampling_rate), sampling_rate
