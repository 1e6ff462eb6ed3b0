"""Kind "series": channels x time steps, such as sensors and motion capture."""

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from transformers import PreTrainedConfig

from ...methods.optional_fields import takes_channels_last
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ...terminal import counted
from ..looking import columns_of, is_array
from ..processors import Processor
from ..tables.sources import AnyDataset
from .examples import Example, arrays
from .guesses import ARRAYS, Guess, first_rows, metamae
from .numeric import NumericArguments, NumericKind
from .preparers import ArrayInput, NumericInput, SampleProcessor


@dataclass
class SeriesArguments(NumericArguments):
    """Arguments of time series. `input_column` is one column of (C, T) or (T,) values, or a list of one per channel."""

    kind: str = "series"

    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, list)


WANTED_TOKENS = 32  # of a guessed model
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


class SeriesKind(SeriesInputs[SeriesArguments]):
    """Time series."""

    name = "series"
    arguments = SeriesArguments
    read_by = (SeriesFeatureExtractor,)

    def reads(self, config: PreTrainedConfig, processor: Processor) -> bool:
        return super().reads(config, processor) and not is_of_table(processor)

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """One column of (T,) or (C, T) lists: patches that divide the length into about 32 tokens where that goes."""
        columns = [name for name in columns_of(rows, is_array) if name != label]
        shapes = [np.shape(row[columns[0]]) for row in first_rows(rows)] if len(columns) == 1 else []
        shape = shapes[0] if shapes else ()
        if len(shape) not in (1, 2):
            return None
        channels, length = (1, shape[0]) if len(shape) == 1 else shape
        divisors = [one for one in range(1, length + 1) if length % one == 0]
        patch = min(divisors, key=lambda one: abs(length / one - WANTED_TOKENS))
        size = {"series_length": length, "num_channels": channels, "patch_size": patch}
        return Guess(
            ARRAYS,
            f"lists of numbers in {columns[0]!r}",
            {"input_column": columns[0]},
            {"modality": self.modality, **size, **metamae(0.75)},
            remarks=[f"series: {counted(channels, 'channel')}, {length} time steps, {length // patch} patches"],
        )

    def unmeasured(self, args: SeriesArguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        return SeriesFeatureExtractor(
            config.num_channels,
            config.series_length,
            scale=args.scale,
            standardize=args.standardize,
            channels_last=takes_channels_last(config),
            invalid_value=args.invalid_value,
        )

    def numeric_input(
        self, args: SeriesArguments, processor: SampleProcessor, train_split: AnyDataset
    ) -> NumericInput:
        return ArrayInput(self.input_name, tuple(args.input_columns()), processor, missing=args.missing)


def is_of_table(processor: Processor) -> bool:
    """Whether a processor has statistics of each feature, as those of tables do."""
    return isinstance(processor, SeriesFeatureExtractor) and processor.statistics_axis == "feature"
