"""The base of kinds of numbers: standardisation, and a processor with statistics of the training split."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedConfig

from ...checks import FINITE, Range
from ..arguments import DataArguments
from ..collators import BatchCollator
from ..processors import Processor, split_processor
from ..tables.empty_rows import Inputs, NumberColumns, number_columns, observed_values
from ..tables.preparing import PreparedSplit, RawSplit, filled_rows, prepare_split
from ..tables.report import DataReport
from ..tables.sources import AnyDataset
from ..tables.statistics import MomentsOfBatch, measured_moments
from .base import Fitted, Kind, Summary
from .preparers import Missing, NumericInput, RowPreparer, SampleProcessor

logger = logging.getLogger(__name__)


@dataclass
class NumericArguments(DataArguments):
    """Arguments of a kind whose rows hold numbers.

    Attributes:
        standardize: Source of the mean that is subtracted, and of the standard deviation that values are divided by:
            `"dataset"` takes both, per channel (tabular: per feature), from the training split; `"sample"` from the
            sample itself; `"none"` leaves values as they are.
        scale: Factor that raw values are multiplied by first (1/255 for bytes, 1/32768 for 16-bit waveforms in a column;
            waveforms in WAV files are in [-1, 1) already).
        missing: Rule for missing values, which are NaN, null and `invalid_value`. `"mask"`: nobody sees them, the model neither
            reads nor predicts nor pools them, and no statistics count them; a row with nothing else is left out. `"error"`
            refuses them.
        invalid_value: Raw value that says that none was measured, such as -999.
    """

    standardize: Literal["dataset", "sample", "none"] = "dataset"
    scale: float = 1.0
    missing: Missing = "mask"
    invalid_value: float | None = None

    RANGES: ClassVar[dict[str, Range]] = {**DataArguments.RANGES, "scale": FINITE, "invalid_value": FINITE}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale == 0.0:
            raise ValueError("data.scale: expected a number other than 0, which would erase the input")

    @property
    def reads_lists(self) -> bool:
        return True


Arguments = TypeVar("Arguments", bound=NumericArguments)


class NumericKind(Kind[Arguments]):
    """A kind of one numeric input.

    Attributes:
        input_name: Key of prepared rows and of batches.
        statistics_axis: Axis of values (rows, ...) that has a mean and a standard deviation for each entry: 1 for channels.
    """

    input_name: ClassVar[str]
    statistics_axis: ClassVar[int] = 1

    @abstractmethod
    def unmeasured(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        """The processor of a recipe, without statistics of the training split."""

    @abstractmethod
    def numeric_input(self, args: Arguments, processor: SampleProcessor, train_split: AnyDataset) -> NumericInput:
        """The numeric input, which reads raw values."""

    @abstractmethod
    def sizes(self, processor: object, config: PreTrainedConfig) -> tuple[list[int], list[int]] | None:
        """Sizes that the model takes and that the processor makes; None for a processor of another kind."""

    def build_processor(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> Processor:
        return self.built_numeric(args, config, train_split)

    def built_numeric(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        """The processor of the numeric input, with mean and standard deviation where `standardize: dataset` asks for them."""
        processor = self.unmeasured(args, config, train_split)
        return self._measured(processor, args, train_split) if args.standardize == "dataset" else processor

    def fitted_processor(
        self, processor: Processor, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        """The checkpoint's processor unchanged, with the statistics that it was trained with."""
        sizes = self.sizes(split_processor(processor)[0], config)
        if sizes is None:
            raise ValueError(
                f"data.kind {args.kind!r} cannot be prepared by the checkpoint's processor, a {type(processor).__name__}"
            )
        wanted, given = sizes
        if wanted != given:
            raise ValueError(f"the checkpoint's processor makes inputs of size {given}, the model takes {wanted}")
        return processor

    def rows(self, split: RawSplit, args: Arguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        return prepare_split(split.rows, self.preparer(split, args, fitted), args)

    def preparer(self, split: RawSplit, args: Arguments, fitted: Fitted) -> RowPreparer:
        """What prepares the rows of a split."""
        processor = cast(SampleProcessor, split_processor(fitted.processor)[0])  # `fitted_processor` has checked it
        numeric = self.numeric_input(args, processor, fitted.train_split)
        return RowPreparer(numeric, None, args.label_column, None, fitted.labels, split.name, split.numbers)

    def collator(self, args: Arguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        # A list of columns has no single name; the row's number then leads to the value.
        column = args.input_column if isinstance(args.input_column, str) else "the feature columns"
        return BatchCollator({self.input_name: column})

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: Arguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the share of values that are missing."""
        for name, split in splits.items():
            inputs = [columns for columns in self.row_inputs(split.rows, args) if isinstance(columns, NumberColumns)]
            if isinstance(split.rows, Dataset) and inputs:
                observed, total = observed_values(split.rows, inputs[0])
                if (count := int(total.sum())) and (missing := count - int(observed.sum())):
                    report.splits[name].missing_share = missing / count

    def usable(self, rows: AnyDataset, args: Arguments, config: PreTrainedConfig, name: str) -> RawSplit:
        return filled_rows(rows, self.row_inputs(rows, args), name)

    def row_inputs(self, rows: AnyDataset, args: Arguments) -> Inputs:
        """`inputs`; where the recipe does not name the columns, those of the rows."""
        return self.inputs(args)

    def inputs(self, args: Arguments) -> Inputs:
        """The columns of the input, whose rows with nothing observed are left out; under `missing: error` they are refused."""
        if args.missing == "error" or not args.input_columns():
            return super().inputs(args)
        return [number_columns(args.input_columns(), args.invalid_value)]

    def summary(self, args: Arguments, config: PreTrainedConfig | None) -> Summary:
        return [
            ("standardised by", args.standardize),
            ("values multiplied by", args.scale if args.scale != 1 else None),
            ("value of what was not measured", args.invalid_value),
        ]

    def _measured(self, processor: SampleProcessor, args: Arguments, train_split: AnyDataset) -> SampleProcessor:
        """A copy of the processor with the mean and standard deviation of the training split."""
        numeric = self.numeric_input(args, processor, train_split)
        preparer = RowPreparer(numeric)
        axis = self.statistics_axis
        moments = MomentsOfBatch(preparer, preparer.scaled(axis), f"{preparer.description()} {axis}")
        found = self.moments(moments, args, train_split)
        if found is None:
            raise ValueError(f"data.input_column {list(numeric.columns)}: the training split holds no value")
        mean, std = found
        names = self.measured_names(numeric, len(std))
        for flags, words in (
            (std == 0.0, "constant in the training split, so only centred, not divided: %s"),
            (np.isnan(std), "without any value in the training split, so the model cannot learn it: %s"),
        ):
            if flags.any():
                logger.warning(words, [name for name, flag in zip(names, flags, strict=True) if flag])
        mean, std = np.nan_to_num(mean), np.where((std == 0.0) | np.isnan(std), 1.0, std)
        settings = {**processor.to_dict(), "mean": mean.tolist(), "std": std.tolist()}
        settings = {name: value for name, value in settings.items() if not name.endswith("_type")}
        return type(processor)(**settings)

    def moments(
        self, measure: MomentsOfBatch, args: Arguments, train_split: AnyDataset
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """What `measured_moments` gives."""
        return measured_moments(measure, args, train_split)

    def measured_names(self, numeric: NumericInput, count: int) -> Sequence[str | int]:
        """Names, for messages, of the entries with a mean of their own: numbers of channels."""
        return range(count)
