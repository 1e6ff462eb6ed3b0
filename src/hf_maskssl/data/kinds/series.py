"""Kind "series": channels x time steps, such as sensors and motion capture."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig

from ...checks import ABOVE_0, Range
from ...files import JsonObject
from ...methods.optional_fields import takes_channels_last
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ...terminal import counted
from ..looking import columns_of, is_array, is_feature, usual_label
from ..processors import Processor
from ..tables.first_rows import first_rows
from ..tables.loggers import LabelRule, LoggerTable, Resampling, cut_in_time, label_rule, read_logger
from ..tables.preparing import RawSplit
from ..tables.report import DataReport, first_names
from ..tables.sources import AnyDataset, column_names
from ..tables.statistics import MomentsOfBatch
from ..tables.step_readers import SeriesReader
from ..tables.windows import SeriesParts, WindowedRows, Windows
from .base import Summary
from .examples import Example, arrays
from .guesses import ARRAYS, LOOKED_AT, STEPS, Guess, metamae
from .numeric import NumericArguments, NumericKind
from .preparers import ArrayInput, NumericInput, SampleProcessor
from .series_guesses import WANTED_TOKENS, find_logger, remarks_by_lengths, sizes_by_lengths, step_columns
from .windowed import WindowArguments, WindowedKind


@dataclass
class SeriesArguments(WindowArguments):
    """Arguments of time series. `input_column` is one column of (C, T) or (T,) values, or a list of one per channel.

    Series may be of different length. Those shorter than `model.series_length` are padded at their end; longer ones are an
    error, or are read by windows. A logger's table, with one row a time step, has `time_column`, `group_column` or both;
    `input_column` then lists its columns of channels.

    Attributes:
        group_column: Name of the column of a logger's table that tells the series apart; None where all rows are one series.
        time_column: Name of the column of a logger's table with the time of each row: numbers, dates, or texts such as
            2024-05-01T12:00:00. They must rise within a series. None means equal steps without a gap.
        sampling_period: Time from one step to the next, in the units of `time_column`, of dates in seconds; rows further apart
            leave missing steps between them. None means the median.
        resample: Rule by which several rates become one: "none" takes each row as a step; "mean" takes the mean of the rows of
            each period; "linear" interpolates each channel at every period, but not across its gaps.
        window_label: Rule by which a logger's labels, one a time step, become that of a window, or where windows are pooled, or
            there are none, of the series: "row" wants one that does not change; "majority" takes the most frequent; "last"
            the last; "mean" the mean of numbers.
    """

    kind: str = "series"
    group_column: str | None = None
    time_column: str | None = None
    sampling_period: float | None = None
    resample: Resampling = "none"
    window_label: LabelRule = "row"

    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, list)
    RANGES: ClassVar[dict[str, Range]] = {
        **WindowArguments.RANGES,
        "sampling_period": ABOVE_0,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_logger()

    @property
    def is_logger(self) -> bool:
        """Whether a row of the data is one time step."""
        return self.group_column is not None or self.time_column is not None

    @property
    def labels_windows(self) -> bool:
        """Whether each window gets a label from those of its steps."""
        return self.window is not None and not self.pool_windows and self.window_label != "row"

    def assembled(self, rows: AnyDataset, split: str) -> AnyDataset:
        """One series a row, of a logger's table by groups."""
        if not self.is_logger:
            return rows
        assert isinstance(rows, Dataset)  # streams are refused
        table = LoggerTable(
            channels=tuple(self.input_columns()),
            group=self.group_column,
            time=self.time_column,
            period=self.sampling_period,
            resampling=self.resample,
            label=self.single_label_column(),
            label_rule=self.window_label,
            keeps_labels=self.labels_windows,
        )
        return read_logger(rows, table, split)

    def cut_in_time(self, rows: Dataset) -> tuple[Dataset, Dataset] | None:
        """The one series of a logger, its last steps held out."""
        if not self.is_logger or len(rows) != 1:
            return None
        steps = [*self.input_columns(), *(self.target_columns() if self.labels_windows else [])]
        return cut_in_time(rows, steps, self.validation_fraction)

    def _check_logger(self) -> None:
        if self.streaming and self.is_logger:
            raise ValueError(
                "data.streaming: a logger's table (data.group_column, data.time_column) is read whole, to join its rows to "
                "series; set data.streaming to false"
            )
        for name, value, plain in (
            ("sampling_period", self.sampling_period, None),
            ("resample", self.resample, "none"),
        ):
            if value != plain and self.time_column is None:
                raise ValueError(
                    f"data.{name} is {value!r} without data.time_column, the column of the times: set it, too"
                )
        for name, column in (("group_column", self.group_column), ("time_column", self.time_column)):
            if column in self.input_columns():
                raise ValueError(
                    f"data.{name}: {column!r} is also an input column ({self.input_columns()}): take it out of them"
                )
        if self.is_logger and isinstance(self.label_column, list):
            raise ValueError(
                f"data.label_column {self.label_column}: a logger's table (data.group_column, data.time_column) takes one column "
                "of labels: name one of them"
            )
        if self.window_label == "row":
            return
        if not self.is_logger or self.label_column is None:
            raise ValueError(
                f"data.window_label is {self.window_label!r}, which needs a label for each time step: data.label_column of a "
                "logger's table (data.group_column, data.time_column)"
            )
        if (self.window_label == "mean") != (self.task == "regression") and self.window_label != "last":
            fitting = "mean or last" if self.task == "regression" else "majority or last"
            raise ValueError(
                f"data.window_label is {self.window_label!r} with data.task {self.task!r}: expected {fitting}"
            )


Arguments = TypeVar("Arguments", bound=NumericArguments)


class SeriesInputs(NumericKind[Arguments]):
    """The base of series and of tables, which are series of one channel."""

    modality = "series"
    input_name = "input_values"

    def sizes(self, processor: object, config: PreTrainedConfig) -> tuple[list[int], list[int]] | None:
        if not isinstance(processor, SeriesFeatureExtractor):
            return None
        return [config.num_channels, config.series_length], [processor.num_channels, processor.series_length]

    def fitted_processor(
        self, processor: Processor, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        fitted = super().fitted_processor(processor, args, config, train_split)
        assert isinstance(fitted, SeriesFeatureExtractor)
        if fitted.channels_last != takes_channels_last(config):
            layouts = {True: "time x channels", False: "channels x time"}
            raise ValueError(
                f"the checkpoint's processor gives {layouts[fitted.channels_last]} (channels_last), the model "
                f"takes {layouts[takes_channels_last(config)]}: use a processor made for this model"
            )
        return fitted

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: Arguments | None, task: str | None
    ) -> Example | None:
        if not isinstance(processor, SeriesFeatureExtractor):
            return super().example(processor, config, args, task)
        channels, length = processor.num_channels, processor.series_length
        if processor.reads_cells:
            lines = (f"rows = [{processor.typical_row()}] * 2  # a cell for each column",)
            return Example((), {"processor": "AutoFeatureExtractor"}, lines, '**processor(rows, return_tensors="pt")')
        if processor.statistics_axis == "feature":
            return arrays(
                "rows", f"rows = np.random.rand(2, {length})  # {length} features each", "AutoFeatureExtractor"
            )
        sample = f"series = np.random.rand(2, {channels}, {length})  # channels x time steps"
        return arrays("series", sample, "AutoFeatureExtractor")


class SeriesKind(WindowedKind[SeriesArguments], SeriesInputs[SeriesArguments]):
    """Time series."""

    name = "series"
    length_unit = "steps"
    arguments = SeriesArguments
    read_by = (SeriesFeatureExtractor,)

    def reads(self, config: PreTrainedConfig, processor: Processor) -> bool:
        return super().reads(config, processor) and not is_of_table(processor)

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        """The one column of lists; or the columns of a logger's table, by the channels that the model was trained on."""
        names = processor.channel_names if isinstance(processor, SeriesFeatureExtractor) else None
        if not columns_of(rows, is_array):
            found = find_logger(rows, None if names else usual_label(rows), names)
            if found is not None and len(found.channels) == config.num_channels:
                is_long = bool(found.lengths.max() > config.series_length)
                return {**found.fields, **({"window": config.series_length} if is_long else {})}
        return super().find_input(rows, config, processor)

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """One column of (T,) or (C, T) lists, in patches of which a series has about 32; or a logger's table."""
        columns = [name for name in columns_of(rows, is_array) if name != label]
        if not columns:
            return self._guess_of_logger(rows, label)
        cells = [row[columns[0]] for row in first_rows(rows, LOOKED_AT)] if len(columns) == 1 else []
        first = next((cell for cell in cells if cell is not None and len(cell)), None)
        shapes = [_shape_of(columns[0], cell) for cell in cells if cell is not None and len(cell)]
        shape = shapes[0] if shapes else ()
        if len(shape) not in (1, 2):
            return None
        channels = 1 if first is None or len(shape) == 1 else len(first)
        if len(shape) == 2:
            _refuse_steps_first(columns[0], shapes)
        lengths = self._lengths(rows, columns)
        lengths = lengths[lengths > 0]  # empty rows are left out
        found = {"input_column": columns[0]}
        if lengths.min() == lengths.max():
            length = int(lengths[0])
            divisors = [one for one in range(1, length + 1) if length % one == 0]
            patch = min(divisors, key=lambda one: abs(length / one - WANTED_TOKENS))
            size: JsonObject = {"series_length": length, "num_channels": channels, "patch_size": patch}
            remark = f"series: {counted(channels, 'channel')}, {length} time steps, {length // patch} patches"
            return self._guess(f"lists of numbers in {columns[0]!r}", found, size, [remark])
        size, data, counts = sizes_by_lengths(lengths)
        size = {"series_length": size["series_length"], "num_channels": channels, "patch_size": size["patch_size"]}
        remarks = remarks_by_lengths(lengths, size, data, counts)
        guess = self._guess(f"lists of numbers in {columns[0]!r}", {**found, **data}, size, remarks)
        return dataclasses.replace(guess, rows_of_each=counts)

    def _guess(self, reason: str, data: JsonObject, size: JsonObject, remarks: list[str]) -> Guess:
        tokens = size["series_length"] // size["patch_size"]
        ratio = 0.75 if tokens > 4 else 0.5  # of up to four tokens, masking three quarters may leave none to read
        return Guess(ARRAYS, reason, data, {"modality": self.modality, **size, **metamae(ratio)}, remarks=remarks)

    def _guess_of_logger(self, rows: AnyDataset, label: str | None) -> Guess | None:
        found = find_logger(rows, label)
        if found is None:
            return self._guess_of_wide(rows, label)
        lengths = found.lengths
        sizes, data, counts = sizes_by_lengths(lengths)
        size: JsonObject = {**sizes, "num_channels": len(found.channels)}
        remarks = [f"channels: {first_names(found.channels)}; --data.input_column names others"]
        read = {*found.channels, found.time, found.group, label}
        if unread := [name for name in column_names(rows) if name not in read]:
            remarks.append(f"left out: the columns {first_names(unread)}; --data.input_column names those to read")
        if found.period is not None:
            remarks.append(
                f"rates: series have several, brought to {found.period:.4g} a step by their means; --data.sampling_period, "
                "--data.resample"
            )
        remarks += remarks_by_lengths(lengths, size, data, counts)
        guess = self._guess(found.reason, {**found.fields, **data}, size, remarks)
        changes = label is not None and label not in found.joined.column_names
        rule: JsonObject = {"window_label": "majority", **({"pool_windows": False} if "window" in data else {})}
        return dataclasses.replace(guess, rows_of_each=counts, with_label=rule if changes else {})

    def _guess_of_wide(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """Numbered columns, one a time step, of a series of one channel; tables have such columns, too, and come first."""
        steps = step_columns([name for name in columns_of(rows, is_feature) if name != label])
        if not steps:
            return None
        patch = max(1, round(len(steps) / WANTED_TOKENS))
        patch = next(one for one in range(patch, 0, -1) if len(steps) % one == 0)
        size: JsonObject = {"series_length": len(steps), "num_channels": 1, "patch_size": patch}
        remark = f"series: 1 channel, {len(steps)} time steps, {len(steps) // patch} patches"
        reason = f"one column a time step, {steps[0]!r} to {steps[-1]!r}"
        return dataclasses.replace(self._guess(reason, {"input_column": steps}, size, [remark]), certainty=STEPS)

    @staticmethod
    def _lengths(rows: AnyDataset, columns: list[str]) -> np.ndarray:
        """(rows,) int64, the steps of each series; of a stream those of the first rows."""
        if isinstance(rows, Dataset):
            return SeriesReader(rows, columns).lengths()
        cells = [row[columns[0]] for row in first_rows(rows, LOOKED_AT)]
        return np.array([len(cell[0]) if np.ndim(cell[0]) else len(cell) for cell in cells if cell])

    def model_length(self, config: PreTrainedConfig) -> tuple[str, int]:
        return "series_length", config.series_length

    def unmeasured(self, args: SeriesArguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        channels = args.input_column if isinstance(args.input_column, list) else []
        return SeriesFeatureExtractor(
            config.num_channels,
            config.series_length,
            scale=args.scale,
            standardize=args.standardize,
            channels_last=takes_channels_last(config),
            invalid_value=args.invalid_value,
            channel_names=channels
            if len(channels) == config.num_channels
            else None,  # a wide table has a column a step
        )

    def parts(self, measure: MomentsOfBatch, windows: Windows, train_split: Dataset) -> WindowedRows:
        """Parts without overlap, and series are not padded for it, so that each value counts once."""
        plain = dataclasses.replace(windows, stride=windows.size, label_column=None, label_of_steps=None)
        return SeriesParts(train_split, measure.prepare, plain)

    def windows(self, args: SeriesArguments, processor: Processor) -> Windows:
        assert args.window is not None
        label = args.single_label_column() if args.labels_windows else None
        rule = label_rule(args.window_label) if label is not None else None
        stride = args.window if args.stride is None else args.stride
        return Windows(
            tuple(args.input_columns()),
            args.window,
            stride,
            args.pool_windows,
            label,
            rule,
            args.invalid_value,
            args.drop_missing_labels,
        )

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: SeriesArguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the lengths, where they differ, and the windows."""
        super().describe_rows(splits, args, processor, report)
        for name, split in splits.items():
            if args.window is not None or not isinstance(split.rows, Dataset) or not len(split.rows):
                continue
            if not set(args.input_columns()) <= set(columns_of(split.rows, is_array)):
                continue  # a wide table
            lengths = SeriesReader(split.rows, args.input_columns(), name).lengths()
            if lengths.min() != lengths.max():
                report.splits[name].lengths = [int(lengths.min()), int(np.median(lengths)), int(lengths.max())]

    def summary(self, args: SeriesArguments, config: PreTrainedConfig | None) -> Summary:
        """How long series are read and a logger's rows are joined."""
        return [
            *super().summary(args, config),
            ("series told apart by", args.group_column),
            ("times in", args.time_column),
            ("sampling period", args.sampling_period or (None if args.time_column is None else "the median step")),
            ("rates brought to one by", None if args.resample == "none" else args.resample),
        ]

    def numeric_input(
        self, args: SeriesArguments, processor: SampleProcessor, train_split: AnyDataset
    ) -> NumericInput:
        return ArrayInput(self.input_name, tuple(args.input_columns()), processor, missing=args.missing)


def _shape_of(column: str, cell: Sequence[object]) -> tuple[int, ...]:
    """The shape of a list, or of a list of lists.

    Raises:
        ValueError: Its lists have several lengths.
    """
    try:
        return np.asarray(cell).shape
    except ValueError as error:
        sizes = sorted({len(one) for one in cell if isinstance(one, list)})
        raise ValueError(
            f"DATA: column {column!r} holds lists whose lists have {sizes[0]} to {sizes[-1]} numbers; expected a list for each "
            "channel, all of a cell of one length: fill what was not measured with null"
        ) from error


def _refuse_steps_first(column: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse lists of steps, each of channels: lengths differ along the axis that is to be that of the channels.

    Raises:
        ValueError: They are such lists.
    """
    outer, inner = ({shape[axis] for shape in shapes if len(shape) == 2} for axis in (0, 1))
    if len(outer) > 1 and len(inner) == 1:
        raise ValueError(
            f"DATA: column {column!r} holds lists of {min(outer)} to {max(outer)} lists of {inner.pop()} numbers each, which "
            "look like steps of channels; expected a list for each channel, of its steps: transpose each cell"
        )


def is_of_table(processor: Processor) -> bool:
    """Whether a processor has statistics of each feature, as those of tables do."""
    return isinstance(processor, SeriesFeatureExtractor) and processor.statistics_axis == "feature"
