"""Windows of long rows, of series or sounds: where they begin, and rows that are windows."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset

from ...terminal import counted
from .draws import RowDraws
from .empty_rows import number_columns, observed_values
from .rows import Column, Rows, TransformedRows
from .step_readers import SeriesReader, StepReader

# So often a window begins anew where nothing was observed, before it begins where the cut says.
DRAWS = 10
NOT_OBSERVED = "no step of which was observed"
NOT_LABELLED = "no step of which has a label"

logger = logging.getLogger(__name__)

# The labels of the steps of a window -> its label.
LabelOfSteps: TypeAlias = Callable[[Sequence[Any]], Any]


def window_starts(length: int, window: int, stride: int) -> np.ndarray:
    """First steps (n,) int64 of the windows of a series: every `stride` steps, and one that ends where the series ends.

    A series that is not longer than the window has one, which begins with it.
    """
    if length <= window:
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, length - window + 1, stride, dtype=np.int64)
    return starts if starts[-1] + window == length else np.append(starts, length - window)


@dataclass(frozen=True)
class Windows:
    """The cut of long rows into windows: of series, whose steps are time steps; of sounds see `SoundWindows`.

    Attributes:
        columns: Columns of the input.
        size: Number of steps of a window.
        stride: Number of steps from one window to the next.
        is_pooled: Whether the windows of a row become one row of features, or one prediction.
        label_column: Column that holds a label for each step; None where a row has one label, or none.
        label_of_steps: Callable that makes a window's label of those of its steps.
        invalid_value: Number that says that none was measured, beside null and NaN; None where there is none.
        drops_unlabelled: Whether a window without the label of any step is left out; otherwise it is refused.
    """

    columns: tuple[str, ...]
    size: int
    stride: int
    is_pooled: bool = True
    label_column: str | None = None
    label_of_steps: LabelOfSteps | None = None
    invalid_value: float | None = None
    drops_unlabelled: bool = False

    def reader(self, dataset: Dataset, split: str, numbers: np.ndarray | None = None) -> StepReader:
        """What reads the steps of a split's raw rows, and where windows have labels, those of the steps.

        Args:
            dataset: Raw rows, one a series or sound.
            split: Name of the split, for messages.
            numbers: Number (n,) int64 that each row had before some were left out, for messages; None where none were.
        """
        reader = SeriesReader(dataset, self.columns, split, self.invalid_value)
        return reader if self.label_column is None else reader.with_column(dataset, self.label_column)


@dataclass(frozen=True)
class CutWindows:
    """Windows of the rows of a split.

    Attributes:
        owners: (n,) int64, the row of each window.
        starts: (n,) int64, the step of its row with which each begins.
        lengths: (rows,) int64, the steps of each row.
        gaps: Rows in which a step lacks a value or a label, so that a window of theirs may hold nothing.
        left_out: Reason -> windows that were left out for it.
    """

    owners: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    gaps: frozenset[int] = frozenset()
    left_out: dict[str, int] = field(default_factory=dict)


def cut_windows(dataset: Dataset, windows: Windows, reader: StepReader) -> CutWindows:
    """Cut long rows into windows and leave out those that hold nothing.

    Args:
        dataset: Raw rows, one a series or sound.
        windows: Cut into windows.
        reader: Reader of the rows' steps, `windows.reader`.

    Raises:
        ValueError: A window without a label (unless they are dropped), no window that is left, channels that are not equally
            long, or a column without lists.
    """
    lengths = reader.lengths()
    firsts = [window_starts(int(length), windows.size, windows.stride) for length in lengths]
    owners = np.repeat(np.arange(len(firsts)), [len(one) for one in firsts])
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *firsts])
    is_holed = reader.holed()
    if windows.label_column is not None:
        labelled, entries = observed_values(dataset, number_columns([windows.label_column]))
        is_holed = is_holed | (labelled < entries)
    gaps = frozenset(np.flatnonzero(is_holed).tolist())
    kept = np.ones(len(owners), dtype=bool)
    left_out = dict.fromkeys((NOT_OBSERVED, NOT_LABELLED), 0)
    for row in sorted(gaps):
        first, stop = np.searchsorted(owners, [row, row + 1]).tolist()
        stops = np.minimum(starts[first:stop] + windows.size, lengths[row])
        seen = _any_within(reader.seen(row, 0, int(lengths[row])), starts[first:stop], stops)
        labelled_steps = labelled_of(reader, windows, row, 0, int(lengths[row]))
        has_label = _any_within(labelled_steps, starts[first:stop], stops)
        if not windows.drops_unlabelled and not (has_label | ~seen).all():
            place = int(np.flatnonzero(seen & ~has_label)[0])
            raise ValueError(
                f"{reader.split} split, row {row}, column {windows.label_column!r}: none of the steps {starts[first + place]} to "
                f"{stops[place] - 1}, a window, has a label: fill them, or set data.drop_missing_labels to true to leave such "
                "windows out"
            )
        kept[first:stop] = seen & has_label
        left_out[NOT_OBSERVED] += int((~seen).sum())
        left_out[NOT_LABELLED] += int((seen & ~has_label).sum())
    if len(kept) and not kept.any():
        raise ValueError(
            f"{reader.split} split: of {len(kept)} windows (data.window {windows.size}) none is left: {left_out}"
        )
    found = {reason: count for reason, count in left_out.items() if count}
    return CutWindows(owners[kept], starts[kept], lengths, gaps, found)


def labelled_of(reader: StepReader, windows: Windows, row: int, start: int, stop: int) -> np.ndarray:
    """(stop - start,) bool, whether each step of a row has a label; true where windows have none."""
    if windows.label_column is None:
        return np.ones(stop - start, dtype=bool)
    assert isinstance(reader, SeriesReader), "only series have a label for each step"
    entries = reader.entries(windows.label_column, row, start, stop)
    return np.array([value is not None and value == value for value in entries], dtype=bool)


def _any_within(flags: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """(n,) bool, whether any flag is set from each start to before its stop."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(counts[stops] > counts[starts])


class WindowedRows(TransformedRows):
    """Windows of series or sounds, each prepared when it is read.

    Windows that hold nothing are left out; nothing is drawn from where nothing was observed. The `index` of a window is its
    number.

    Args:
        dataset: Raw rows, one a series or sound.
        prepare: Callable that makes prepared columns of raw columns and row numbers.
        windows: Cut into windows.
        draws: Random numbers by which the windows begin anywhere in their row, anew in every epoch; None begins them where
            the cut says.
        split: Name of the split, for messages.
        numbers: Number (n,) int64 that each row had before some were left out, for messages; None where none were.

    Attributes:
        owners: (n,) int64, the row of each window.
        starts: (n,) int64, the step of its row with which each window begins, where nothing is drawn.
        lengths: (rows,) int64, the steps of each row.
        left_out: Reason -> windows that were left out for it.

    Raises:
        ValueError: The channels of a row are not equally long, a column holds no lists, or a window has no label.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Rows, Sequence[int]], dict[str, Column]],
        windows: Windows,
        draws: RowDraws | None = None,
        split: str = "train",
        numbers: np.ndarray | None = None,
    ) -> None:
        super().__init__(dataset, prepare)
        self.windows, self.draws, self.split, self.numbers = windows, draws, split, numbers
        self._reader: StepReader | None = None
        cut = self.cut()
        self.owners, self.starts, self.lengths, self.gaps = cut.owners, cut.starts, cut.lengths, cut.gaps
        self.total = len(self.starts)
        self.left_out = cut.left_out
        named = (*windows.columns, *([windows.label_column] if windows.label_column else []))
        present = set(dataset.column_names)
        self._others = dataset.remove_columns([name for name in named if name in present]).with_format(None)

    def cut(self) -> CutWindows:
        """The windows of all rows."""
        return cut_windows(self.dataset, self.windows, self.reader)

    def tell_left_out(self) -> None:
        """Warn of the windows that were left out."""
        for reason, count in self.left_out.items():
            logger.warning("%s split: %s, %s, left out", self.split, counted(count, "window"), reason)

    @property
    def reader(self) -> StepReader:
        """What reads the steps."""
        if self._reader is None:
            self._reader = self.windows.reader(self.dataset, self.split, self.numbers)
        return self._reader

    @property
    def chosen_owners(self) -> np.ndarray:
        """(windows of this set,) int64, the row of each."""
        return self.owners if self.chosen is None else self.owners[self.chosen]

    @property
    def chosen_starts(self) -> np.ndarray:
        """(windows of this set,) int64, the step with which each begins, where nothing is drawn."""
        return self.starts if self.chosen is None else self.starts[self.chosen]

    def of_rows(self, first: int, stop: int) -> "WindowedRows":
        """The windows of the rows from `first` to before `stop`, which lie together."""
        return self.select(range(*np.searchsorted(self.owners, [first, stop]).tolist()))

    def fixed(self) -> "WindowedRows":
        """The same windows with nothing drawn."""
        rows = copy.copy(self)
        rows.draws = None
        return rows

    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        batch, owners = self.raw(numbers)
        columns = self.prepare(batch, owners.tolist())
        columns["index"] = np.asarray(numbers, dtype=np.int64)
        return [{name: values[place] for name, values in columns.items()} for place in range(len(numbers))]

    def raw(self, numbers: np.ndarray) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Raw columns of windows, and the rows (n,) that they are of."""
        owners = self.owners[numbers]
        batch: dict[str, list[Any]] = {name: [] for name in self.windows.columns}
        label, rule = self.windows.label_column, self.windows.label_of_steps
        if label is not None:
            batch[label] = []
        for number, owner in zip(numbers.tolist(), owners.tolist(), strict=True):
            start = self._start(number, owner)
            stop = min(start + self.windows.size, int(self.lengths[owner]))
            for name in self.windows.columns:
                batch[name].append(self.reader.steps(name, owner, start, stop))
            if label is not None and rule is not None:
                assert isinstance(self.reader, SeriesReader), "only series have a label for each step"
                batch[label].append(rule(self.reader.entries(label, owner, start, stop)))
        if self._others.column_names:
            batch |= {name: list(values) for name, values in self._others[owners.tolist()].items()}
        return batch, owners

    def _start(self, number: int, owner: int) -> int:
        last = int(self.lengths[owner]) - self.windows.size
        if self.draws is None or last <= 0:
            return int(self.starts[number])
        generator = self.draws.generator(number)
        for _ in range(DRAWS):
            start = int(generator.integers(0, last + 1))
            if owner not in self.gaps or self._holds_something(owner, start):
                return start
        return int(self.starts[number])

    def _holds_something(self, owner: int, start: int) -> bool:
        place = (owner, start, start + self.windows.size)
        return bool(self.reader.seen(*place).any() and labelled_of(self.reader, self.windows, *place).any())

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        if self.draws is not None:
            self.draws.set_epoch(epoch, seed)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process makes its views into the table anew.
        return {**self.__dict__, "_reader": None}


class SeriesParts(WindowedRows):
    """Parts of series, one behind the other without overlap; the last one of a series may be shorter, and any may be empty."""

    def cut(self) -> CutWindows:
        lengths = self.reader.lengths()
        firsts = [np.arange(0, max(int(length), 1), self.windows.size, dtype=np.int64) for length in lengths]
        owners = np.repeat(np.arange(len(firsts)), [len(one) for one in firsts])
        return CutWindows(owners, np.concatenate([np.zeros(0, dtype=np.int64), *firsts]), lengths)


def labels_of_windows(rows: WindowedRows, dataset: Dataset, column: str, rule: LabelOfSteps) -> list[Any]:
    """The label of each window, by the labels of its steps in a column of the dataset that the windows are of."""
    reader = SeriesReader(dataset, (), rows.split).with_column(dataset, column)
    places = zip(rows.chosen_owners.tolist(), rows.chosen_starts.tolist(), strict=True)
    size, lengths = rows.windows.size, rows.lengths
    return [rule(reader.entries(column, row, start, min(start + size, int(lengths[row])))) for row, start in places]


def pooled_owners(rows: object) -> np.ndarray | None:
    """(windows,) int64, rising, the row of each window where the windows of a row are pooled; None where each row stands for
    itself."""
    return rows.chosen_owners if isinstance(rows, WindowedRows) and rows.windows.is_pooled else None


def firsts_of_rows(owners: np.ndarray) -> np.ndarray:
    """The place (rows,) int64 of the first window of each row, of the row (windows,) of each window, rising."""
    return np.flatnonzero(np.diff(owners, prepend=-1))


def means_of_rows(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Features (windows, D) float32 -> (rows, D), the mean over the windows of each row, which lie together.

    Args:
        values: Features of windows.
        owners: (windows,) the row of each, rising.
    """
    starts = firsts_of_rows(owners)
    ends = np.append(starts[1:], len(owners))
    means = [values[start:end].mean(axis=0, dtype=np.float64) for start, end in zip(starts, ends, strict=True)]
    return np.asarray(means, dtype=np.float32).reshape(len(starts), values.shape[1])
