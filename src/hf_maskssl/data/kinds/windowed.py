"""What kinds have in common whose long rows are read by windows: series, and sounds."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig

from ...checks import AT_LEAST_1, Range
from ..processors import Processor
from ..tables.draws import RowDraws
from ..tables.preparing import PreparedSplit, RawSplit
from ..tables.report import DataReport, SplitReport
from ..tables.sources import AnyDataset
from ..tables.statistics import MomentsOfBatch, moments_of_windows
from ..tables.windows import WindowedRows, Windows, cut_windows
from .base import Fitted, Summary
from .numeric import NumericArguments, NumericKind


@dataclass
class WindowArguments(NumericArguments):
    """Arguments of a kind whose rows may be longer than what the model reads at once.

    Attributes:
        window: Length of the windows by which long rows are read, in the unit of the model's own length: steps of a series, at
            most `model.series_length`; frames of a sound's spectrogram, at most those of `model.image_size`. A shorter row is
            one window, which is padded. In training windows begin anywhere in their row, anew in every epoch, as many as there
            are by `stride`. None reads each row as one.
        stride: Number of steps or frames from one window to the next; None means `window`. The last one ends where the row ends.
        pool_windows: Whether a row's windows become one row again: their features are averaged in embedding and probing, their
            predictions in fine-tuning; otherwise each window is a row.
    """

    window: int | None = None
    stride: int | None = None
    pool_windows: bool = True

    RANGES: ClassVar[dict[str, Range]] = {
        **NumericArguments.RANGES,
        **dict.fromkeys(("window", "stride"), AT_LEAST_1),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is None:
            if self.stride is not None:
                raise ValueError(
                    f"data.stride is {self.stride} without data.window, the length of a window: set it, too"
                )
            return
        if self.stride is not None and self.stride > self.window:
            raise ValueError(
                f"data.stride {self.stride} is more than data.window {self.window}, so what lies between windows would never be "
                f"read: set it to at most {self.window}"
            )
        if self.streaming:
            raise ValueError(
                "data.window: a stream cannot be read by windows, whose number nobody knows; set data.streaming to false"
            )


Arguments = TypeVar("Arguments", bound=WindowArguments)


class WindowedKind(NumericKind[Arguments]):
    """A kind whose long rows are read by windows; before the class of its inputs among the bases.

    Attributes:
        length_unit: What its lengths count, for reports.
    """

    length_unit: ClassVar[str]

    @abstractmethod
    def model_length(self, config: PreTrainedConfig) -> tuple[str, int]:
        """Field of the model that says how many steps or frames it reads, and their number."""

    @abstractmethod
    def windows(self, args: Arguments, processor: Processor) -> Windows:
        """The cut into windows of arguments with `window`; the processor is None where none is there yet."""

    def parts(self, measure: MomentsOfBatch, windows: Windows, train_split: Dataset) -> WindowedRows:
        """The windows by which mean and standard deviation are measured, of a dataset that has the input's columns alone."""
        return WindowedRows(train_split, measure.prepare, windows)

    def check_model(self, args: Arguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        super().check_model(args, config, for_pretraining)
        field, length = self.model_length(config)
        if args.window is not None and args.window > length:
            raise ValueError(
                f"data.window {args.window} is more than model.{field} {length}, the {self.length_unit} that the model reads: "
                "make one of them as large as the other"
            )

    def moments(
        self, measure: MomentsOfBatch, args: Arguments, train_split: AnyDataset
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Of long rows by `parts`, so that none is ever whole in memory."""
        if args.window is None or not isinstance(train_split, Dataset):
            return super().moments(measure, args, train_split)
        windows = self.windows(args, None)
        rows = self.parts(measure, windows, train_split.select_columns(list(windows.columns)))
        return moments_of_windows(measure, rows, args.split_seed)

    def rows(self, split: RawSplit, args: Arguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        if args.window is None:
            return super().rows(split, args, config, fitted)
        assert isinstance(split.rows, Dataset)  # streams are refused
        preparer = self.preparer(split, args, fitted)
        draws = RowDraws(args.split_seed) if split.name == "train" else None
        used = split.rows.select_columns(preparer.used_columns)
        windows = self.windows(args, fitted.processor)
        rows = WindowedRows(used, preparer, windows, draws, split.name, split.numbers)
        rows.tell_left_out()
        return rows

    def describe_windows(self, split: RawSplit, args: Arguments, processor: Processor, report: SplitReport) -> None:
        """Add the windows of a split, and the lengths of its rows, to its report."""
        assert isinstance(split.rows, Dataset)  # streams are refused
        windows = self.windows(args, processor)
        cut = cut_windows(split.rows, windows, windows.reader(split.rows, split.name, split.numbers))
        report.lengths = [int(cut.lengths.min()), int(np.median(cut.lengths)), int(cut.lengths.max())]
        report.length_unit = self.length_unit
        report.windows, report.windows_left_out = len(cut.starts), cut.left_out
        report.shorter = int((cut.lengths < windows.size).sum())

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: Arguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the windows, and with them the lengths."""
        super().describe_rows(splits, args, processor, report)
        for name, split in splits.items():
            if args.window is not None and isinstance(split.rows, Dataset) and len(split.rows):
                self.describe_windows(split, args, processor, report.splits[name])

    def summary(self, args: Arguments, config: PreTrainedConfig | None) -> Summary:
        """How long rows are read."""
        window = (
            None if args.window is None else f"{args.window} {self.length_unit}, every {args.stride or args.window}"
        )
        pooled = None if window is None else "their mean" if args.pool_windows else "one row each"
        return [*super().summary(args, config), ("windows", window), ("features of windows", pooled)]
