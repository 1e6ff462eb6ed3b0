"""Kind "tabular": one number per feature."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedConfig

from ...files import JsonObject, JsonView
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ..kept_statistics import column_names, columns_in_order
from ..looking import columns_of, is_feature, is_list_of_numbers
from ..processors import Processor
from ..tables.columns import left_out_words, numeric_columns
from ..tables.empty_rows import Inputs, number_columns, observed_values
from ..tables.preparing import RawSplit
from ..tables.report import DataReport
from ..tables.sources import AnyDataset
from ..tables.sources import column_names as columns_of_rows
from .guesses import NUMBERS, Guess, first_rows, metamae
from .numeric import NumericArguments
from .preparers import ArrayInput, NumericInput, SampleProcessor
from .series import SeriesInputs, is_of_table, takes_channels_last

# Names of columns that count rows.
ROW_NAMES = ("id", "index", "row", "row_id", "unnamed: 0")
FEWEST_GUESSED = 2  # columns of numbers that make a table
FEWEST_NUMBERED = 20  # rows of a table whose numbering is no chance

logger = logging.getLogger(__name__)


@dataclass
class TabularArguments(NumericArguments):
    """Arguments of tables.

    `input_column` is a list of columns, one per feature, one column that holds a list of all features, or None for every
    numeric column but those of the label and of `split_column`.
    """

    kind: str = "tabular"

    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, list, type(None))


class TabularKind(SeriesInputs[TabularArguments]):
    """Tables: a series of one channel, a step for each feature, each with its own statistics."""

    name = "tabular"
    arguments = TabularArguments
    pipelines = ("tabular-classification", "tabular-regression")
    statistics_axis = 2
    read_by = (SeriesFeatureExtractor,)

    def reads(self, config: PreTrainedConfig, processor: Processor) -> bool:
        return super().reads(config, processor) and is_of_table(processor)

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        """None where the columns are those that the model was trained on, or the one column that holds lists."""
        names = processor.feature_names if isinstance(processor, SeriesFeatureExtractor) else None
        if names is None:
            return super().find_input(rows, config, processor)
        present = columns_of_rows(rows)
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"DATA: the model was trained on the columns {names}, of which {missing} are not there; the columns are "
                f"{present}"
            )
        return {"input_column": None}

    def name_input(
        self, columns: list[str], config: PreTrainedConfig, known: JsonView, is_unnamed: bool
    ) -> JsonObject:
        """Numbers without names are in the order of training."""
        return {"input_column": columns[0]} if is_unnamed else {}

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """Columns of numbers, without those that count rows; or one column of lists, where nothing else holds numbers."""
        lists = [name for name in columns_of(rows, is_list_of_numbers) if name != label]
        numbers = [name for name in columns_of(rows, is_feature) if name != label]
        if len(lists) == 1 and not numbers:
            length = len(first_rows(rows, 1)[0][lists[0]])
            return self._guess(f"lists of {length} numbers", {"input_column": lists[0]}, length, [])
        if len(numbers) < FEWEST_GUESSED:
            return None
        columns, left_out = numeric_columns(rows, {} if label is None else {"label_column": label})
        read = [name for name in columns if name.lower() not in ROW_NAMES]
        dropped = [*left_out, *(name for name in columns if name not in read)]
        dropped = [name for name in dropped if name != label]
        remark = f"left out: the columns {', '.join(dropped)}; --data.input_column names those to read"
        data: JsonObject = {} if len(read) == len(columns) else {"input_column": read}
        return self._guess(f"{len(read)} columns of numbers", data, len(read), [remark] if dropped else [])

    def _guess(self, reason: str, data: JsonObject, features: int, remarks: list[str]) -> Guess:
        size = {"series_length": features, "num_channels": 1, "patch_size": 1}
        model = {"modality": self.modality, **size, **metamae(0.5, adaptation_step_size=1.0)}
        return Guess(NUMBERS, reason, data, model, remarks=remarks)

    def check_model(self, args: TabularArguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        super().check_model(args, config, for_pretraining)
        require_one_channel(self.name, config)

    def ordered_as(self, args: TabularArguments, former: Processor, train_split: AnyDataset) -> TabularArguments:
        """Columns that the recipe does not list stand where the former processor had them."""
        known = column_names(former)
        if args.input_column is not None or known is None:
            return args
        columns = feature_columns(args, None, train_split)
        return dataclasses.replace(args, input_column=columns_in_order(columns, known))

    def unmeasured(self, args: TabularArguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        columns = feature_columns(args, None, train_split)
        is_one_list = isinstance(args.input_column, str)
        left_out = {} if args.input_column is not None else numeric_columns(train_split, _no_features(args))[1]
        if not is_one_list and len(columns) != config.series_length:
            raise ValueError(
                f"model.series_length is {config.series_length}, but there are {len(columns)} feature columns: "
                f"{list(columns)}; set model.series_length to {len(columns)} or list other columns in data.input_column"
                f"{left_out_words(left_out)}"
            )
        return SeriesFeatureExtractor(
            1,
            config.series_length,
            scale=args.scale,
            standardize=args.standardize,
            channels_last=takes_channels_last(config),
            statistics_axis="feature",
            feature_names=None if is_one_list else columns,
            invalid_value=args.invalid_value,
        )

    def numeric_input(
        self, args: TabularArguments, processor: SampleProcessor, train_split: AnyDataset
    ) -> NumericInput:
        return ArrayInput(
            self.input_name, feature_columns(args, processor, train_split), processor, missing=args.missing
        )

    def measured_names(self, numeric: NumericInput, count: int) -> Sequence[str | int]:
        """Names of the columns, where each feature has one."""
        return numeric.columns if len(numeric.columns) > 1 else range(count)

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: TabularArguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the features, their missing values, and why other columns are no features, which a warning says as well."""
        super().describe_rows(splits, args, processor, report)
        train = splits["train"].rows
        report.features = list(feature_columns(args, processor, train))
        for name, split in splits.items():
            if isinstance(split.rows, Dataset):
                for feature in report.features:
                    observed, _ = observed_values(split.rows, number_columns([feature], args.invalid_value))
                    if count := int((observed == 0).sum()):
                        report.splits[name].missing[feature] = count
        if train.features is None:
            return
        named = _no_features(args)
        if args.input_column is None:
            left_out = numeric_columns(train, named)[1]
        else:
            left_out = dict.fromkeys(train.features, "data.input_column does not name it")
        report.features_left_out = {
            name: left_out.get(name, "the checkpoint was trained without it")
            for name in train.features
            if name not in report.features
        }
        unexpected = {name: why for name, why in report.features_left_out.items() if name not in named.values()}
        if unexpected and args.input_column is None:
            logger.warning("%d features: %s%s", len(report.features), report.features, left_out_words(unexpected))
        if isinstance(train, Dataset):
            _warn_of_row_numbers(train, report.features)

    def row_inputs(self, rows: AnyDataset, args: TabularArguments) -> Inputs:
        if args.input_column is not None or args.missing == "error" or not isinstance(rows, Dataset):
            return self.inputs(args)
        return [number_columns(numeric_columns(rows, _no_features(args))[0], args.invalid_value)]

    def input_words(self, args: TabularArguments) -> str:
        return super().input_words(args) or "every numeric column but the label"


def _no_features(args: TabularArguments) -> dict[str, str | None]:
    """Field of the recipe -> column that is no feature, where the recipe names none."""
    return {"label_column": args.label_column, "split_column": args.split_column}


def _warn_of_row_numbers(rows: Dataset, columns: Sequence[str]) -> None:
    """Warn of columns that number the rows: an index, which says nothing of a row, among the features."""
    for name in columns:
        values = rows.data.column(name)
        if not pa.types.is_integer(values.type) or len(values) < FEWEST_NUMBERED:
            continue
        ends = pc.min_max(values).as_py()
        if (
            ends["max"] is not None
            and ends["max"] - ends["min"] == len(values) - 1 == pc.count_distinct(values).as_py() - 1
        ):
            logger.warning(
                "feature %r numbers the rows from %d to %d: if it is an index, leave it out by data.input_column",
                name,
                ends["min"],
                ends["max"],
            )


def feature_columns(args: TabularArguments, processor: Processor, train_split: AnyDataset) -> tuple[str, ...]:
    """The raw columns of the features, in the order the processor was made for.

    Raises:
        ValueError: A label is among the features.
    """
    if args.input_column is not None:
        return tuple(args.input_columns())
    columns = tuple(processor.feature_names or ()) if isinstance(processor, SeriesFeatureExtractor) else ()
    columns = columns or tuple(numeric_columns(train_split, _no_features(args))[0])
    if args.label_column in columns:
        raise ValueError(
            f"data.label_column: the checkpoint was pre-trained with the label column {args.label_column!r} among its features "
            f"{list(columns)}, so it would read the answer: pre-train with data.label_column set to {args.label_column!r}"
        )
    return columns


def require_one_channel(kind: str, config: PreTrainedConfig) -> None:
    """Refuse a model of several channels.

    Raises:
        ValueError: `model.num_channels` is not 1.
    """
    if config.num_channels != 1:
        raise ValueError(f"data.kind {kind!r} has one channel: set model.num_channels to 1, not {config.num_channels}")
