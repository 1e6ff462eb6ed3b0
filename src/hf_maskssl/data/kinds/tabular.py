"""Kind "tabular": a number or a category for each feature."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedConfig

from ...checks import AT_LEAST_1, Range
from ...files import JsonObject, JsonView
from ...methods.optional_fields import category_counts
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ..kept_statistics import categories_of, columns_in_order
from ..looking import columns_of, is_feature, is_list_of_numbers
from ..processors import Processor
from ..tables.columns import INDEX_COLUMN, left_out_words, no_feature_reasons, numeric_columns
from ..tables.empty_rows import Inputs, number_columns, observed_values
from ..tables.first_rows import first_rows
from ..tables.preparing import PreparedSplit, RawSplit
from ..tables.report import DataReport, first_names
from ..tables.sources import AnyDataset
from ..tables.sources import column_names as columns_of_rows
from ..tables.table_columns import holds_categories, unseen_categories
from .base import Fitted, Summary
from .guesses import LOOKED_AT, NUMBERS, ROW_NAMES, Guess, metamae
from .numeric import NumericArguments
from .preparers import ArrayInput, NumericInput, SampleProcessor, TableInput
from .series import SeriesInputs, is_of_table, takes_channels_last
from .table_features import (
    AUTO,
    Features,
    check_counts,
    common_categories,
    find_features,
    guess_categories,
    named_categories,
)

FEWEST_GUESSED = 2  # columns of numbers that make a table
FEWEST_NUMBERED = 20  # rows of a table whose numbering is no chance

logger = logging.getLogger(__name__)


@dataclass
class TabularArguments(NumericArguments):
    """Arguments of tables.

    `input_column` is a list of columns, one per feature, one column that holds a list of all features, or None for every
    numeric column but those of the label and of `split_column`, and the columns of categories and dates.

    Attributes:
        category_columns: Names of the columns that hold categories: words, booleans, or whole numbers that are no amounts.
            `"auto"` means every column of words or booleans, and is what None means where the model reads categories; otherwise
            None means no column.
        max_categories: Largest number of categories of a column.
        date_columns: Names of the columns that hold dates, which become numbers: year, month, day, weekday, and the hour where
            there are times of the day.
        quantile_columns: Names of the columns of numbers with heavy tails, which become the normal scores of their ranks among
            the training rows.
    """

    kind: str = "tabular"
    category_columns: str | list[str] | None = None
    max_categories: int = 1000
    date_columns: list[str] | None = None
    quantile_columns: list[str] | None = None

    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, list, type(None))
    ROWS_OF_CELLS: ClassVar[bool] = True
    RANGES: ClassVar[dict[str, Range]] = {**NumericArguments.RANGES, "max_categories": AT_LEAST_1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.category_columns, str) and self.category_columns != AUTO:
            raise ValueError(
                f"data.category_columns: expected a list of columns or {AUTO!r}, got {self.category_columns!r}"
            )
        if isinstance(self.input_column, str) and (special := self.special_columns()):
            raise ValueError(
                f"data.input_column is the one column {self.input_column!r}, but categories, dates and heavy tails are "
                f"columns of their own: {special}"
            )
        for name, columns in self._special().items():
            others = [one for other, given in self._special().items() if other != name for one in given]
            for column in columns:
                if isinstance(self.input_column, list) and column not in self.input_column:
                    raise ValueError(f"data.{name}: {column!r} is not among data.input_column {self.input_column}")
                if column in others:
                    raise ValueError(
                        f"data.{name}: {column!r} is named as another kind of column, too: keep one of them"
                    )

    def _special(self) -> dict[str, list[str]]:
        return {
            "category_columns": named_categories(self.category_columns),
            "date_columns": self.date_columns or [],
            "quantile_columns": self.quantile_columns or [],
        }

    def special_columns(self) -> list[str]:
        """The columns that the recipe names as others than plain numbers."""
        return [column for columns in self._special().values() for column in columns]

    def columns_read(self) -> list[str]:
        return list(dict.fromkeys([*super().columns_read(), *self.special_columns()]))


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
        names = raw_columns(processor)
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

    def fields_of_processor(self, processor: Processor) -> JsonObject:
        """The columns that are no plain numbers."""
        if not isinstance(processor, SeriesFeatureExtractor) or not processor.reads_cells:
            return {}
        names = processor.feature_names or []
        categories = [name for place, name in enumerate(names) if processor.is_category(place)]
        return {"category_columns": categories, "date_columns": list(processor.date_parts or {})}

    def completed(
        self, args: TabularArguments, config: PreTrainedConfig, for_pretraining: bool = False
    ) -> TabularArguments:
        """Where the model reads categories, columns of words and booleans are columns of them."""
        args = super().completed(args, config, for_pretraining)
        reads_categories = category_counts(config) is not None and not isinstance(args.input_column, str)
        if args.category_columns is None and reads_categories:
            return dataclasses.replace(args, category_columns=AUTO)
        return args

    def columns(self, args: TabularArguments, config: PreTrainedConfig) -> list[tuple[str, str | None]]:
        special = [(field, column) for field, columns in args._special().items() for column in columns]
        return [*super().columns(args, config), *special]

    def name_input(
        self, columns: list[str], config: PreTrainedConfig, known: JsonView, is_unnamed: bool
    ) -> JsonObject:
        """Cells without names are in the order of training."""
        unnamed: JsonObject = {"input_column": columns[0], "category_columns": None, "date_columns": None}
        return unnamed if is_unnamed else {}

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """Columns of numbers and categories, without those that count rows; or one column of lists, where nothing else holds
        numbers.
        """
        lists = [name for name in columns_of(rows, is_list_of_numbers) if name != label]
        numbers = [name for name in columns_of(rows, is_feature) if name != label]
        if len(lists) == 1 and not numbers:
            lengths = [len(row[lists[0]]) for row in first_rows(rows, LOOKED_AT) if row[lists[0]] is not None]
            if not any(lengths):
                return None
            length = max(lengths)
            return self._guess(f"lists of {length} numbers", {"input_column": lists[0]}, length, [])
        counts = guess_categories(rows, label)
        if len(set(numbers) | set(counts)) < FEWEST_GUESSED:
            return None
        without = {} if label is None else {"label_column": label}
        columns, left_out = numeric_columns(rows, without, also=counts)
        read = [name for name in columns if name.lower() not in ("id", *ROW_NAMES)]
        if len(read) < FEWEST_GUESSED:
            return None
        others = [name for name in read if not (isinstance(rows, Dataset) and numbers_rows(rows, name))]
        read = others if len(others) >= FEWEST_GUESSED else read
        kept = set(read)
        dropped = [*left_out, *(name for name in columns if name not in kept)]
        dropped = [name for name in dropped if name != label]
        remarks = (
            [f"left out: the columns {first_names(dropped)}; --data.input_column names those to read"]
            if dropped
            else []
        )
        data: JsonObject = {} if len(read) == len(columns) and not counts else {"input_column": read}
        if not counts:
            return self._guess(f"{len(read)} columns of numbers", data, len(read), remarks)
        categories = [name for name in read if name in counts]
        words = ", ".join(f"{name} ({counts[name]})" for name in categories)
        remarks.append(f"categories: {words}; --data.category_columns")
        reason = f"{len(read) - len(categories)} columns of numbers and {len(categories)} of categories"
        guess = self._guess(reason, {**data, "category_columns": categories}, len(read), remarks)
        guess.model["category_counts"] = [counts.get(name, 0) for name in read]
        return guess

    def _guess(self, reason: str, data: JsonObject, features: int, remarks: list[str]) -> Guess:
        size = {"series_length": features, "num_channels": 1, "patch_size": 1}
        model = {"modality": self.modality, **size, **metamae(0.5, adaptation_step_size=1.0)}
        return Guess(NUMBERS, reason, data, model, remarks=remarks)

    def check_model(self, args: TabularArguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        super().check_model(args, config, for_pretraining)
        require_one_channel(self.name, config)

    def ordered_as(self, args: TabularArguments, former: Processor, train_split: AnyDataset) -> TabularArguments:
        """Columns that the recipe does not list stand where the former processor had them."""
        known = raw_columns(former)
        if args.input_column is not None or known is None:
            return args
        columns = feature_columns(args, None, train_split)
        return dataclasses.replace(args, input_column=columns_in_order(columns, known))

    def unmeasured(self, args: TabularArguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        args = self.completed(args, config)
        columns = feature_columns(args, None, train_split)
        is_one_list = isinstance(args.input_column, str)
        left_out = {} if args.input_column is not None else _features(args, train_split)[1]
        if is_one_list and category_counts(config) is not None:
            raise ValueError(
                f"model.category_counts is of columns with names, but data.input_column is the one column {args.input_column!r}: "
                "list the columns, or remove model.category_counts"
            )
        found = Features(columns) if is_one_list else find_features(args, columns, train_split)
        if not is_one_list and len(found.names) != config.series_length:
            raise ValueError(
                f"model.series_length is {config.series_length}, but there are {len(found.names)} feature columns: "
                f"{list(found.names)}; set model.series_length to {len(found.names)} or list other columns in "
                f"data.input_column{left_out_words(left_out)}"
            )
        if not is_one_list:
            check_counts(found, config)
        return SeriesFeatureExtractor(
            1,
            config.series_length,
            scale=args.scale,
            standardize=args.standardize,
            channels_last=takes_channels_last(config),
            statistics_axis="feature",
            feature_names=None if is_one_list else found.names,
            invalid_value=args.invalid_value,
            categories=found.categories,
            quantiles=found.quantiles,
            date_parts=found.date_parts,
        )

    def numeric_input(
        self, args: TabularArguments, processor: SampleProcessor, train_split: AnyDataset
    ) -> NumericInput:
        reads_cells = isinstance(processor, SeriesFeatureExtractor) and processor.reads_cells
        columns = feature_columns(args, processor, train_split)
        return (TableInput if reads_cells else ArrayInput)(self.input_name, columns, processor, missing=args.missing)

    def measured_names(self, numeric: NumericInput, count: int) -> Sequence[str | int]:
        """Names of the columns, where each feature has one."""
        processor = numeric.processor
        if isinstance(processor, SeriesFeatureExtractor) and processor.feature_names is not None:
            return processor.feature_names
        return numeric.columns if len(numeric.columns) > 1 else range(count)

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: TabularArguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the missing values of each feature, the categories, and the rows with one that training did not have."""
        super().describe_rows(splits, args, processor, report)
        first = next(iter(splits.values())).rows
        features = feature_columns(args, processor, first)
        known = common_categories(args, processor, features, first)
        report.categories = {name: len(categories) for name, categories in known.items()}
        for name, split in splits.items():
            if not isinstance(split.rows, Dataset):
                continue
            for feature in features:
                observed, _ = observed_values(split.rows, number_columns([feature], args.invalid_value))
                if count := int((observed == 0).sum()):
                    report.splits[name].missing[feature] = count
            if known:
                report.splits[name].unseen = unseen_categories(split.rows, known)

    def describe_columns(
        self, train: AnyDataset, args: TabularArguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the features, and why other columns are none, which a warning says as well."""
        report.features = list(feature_columns(args, processor, train))
        if train.features is None:
            return
        named = _no_features(args)
        if args.input_column is None:
            left_out = _features(args, train)[1]
        else:
            left_out = dict.fromkeys(train.features, "data.input_column does not name it") | no_feature_reasons(named)
        kept = set(report.features)
        report.features_left_out = {
            name: left_out.get(name, "the checkpoint was trained without it")
            for name in train.features
            if name not in kept
        }
        unexpected = {name: why for name, why in report.features_left_out.items() if name not in named.values()}
        if unexpected and args.input_column is None:
            read = first_names(report.features)
            logger.warning("%d features: %s%s", len(report.features), read, left_out_words(unexpected))
        if isinstance(train, Dataset):
            _warn_of_row_numbers(train, report.features)

    def rows(self, split: RawSplit, args: TabularArguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        """The rows; a warning counts those with a category that training did not have."""
        for column, count in unseen_categories(split.rows, categories_of(fitted.processor)).items():
            logger.warning(
                "%s split: %d of %d rows have in column %r a category that training did not have, which is missing",
                split.name,
                count,
                len(split.rows),
                column,
            )
        return super().rows(split, args, config, fitted)

    def row_inputs(self, rows: AnyDataset, args: TabularArguments) -> Inputs:
        if args.input_column is not None or args.missing == "error" or not isinstance(rows, Dataset):
            return self.inputs(args)
        return [number_columns(_features(args, rows)[0], args.invalid_value)]

    def summary(self, args: TabularArguments, config: PreTrainedConfig | None) -> Summary:
        given = args.category_columns
        named = {
            "columns of categories": ["all of words or booleans"] if given == AUTO else named_categories(given),
            "columns of dates": args.date_columns or [],
            "columns as normal scores of their ranks": args.quantile_columns or [],
        }
        words = [(name, ", ".join(columns) or None) for name, columns in named.items()]
        return [*super().summary(args, config), *words]

    def input_words(self, args: TabularArguments) -> str:
        kinds = "column of numbers or categories" if args.category_columns else "numeric column"
        return super().input_words(args) or f"every {kinds} but the label"


def raw_columns(processor: Processor) -> list[str] | None:
    """Names of the raw columns of a table that a processor prepares; None without names."""
    return processor.column_names if isinstance(processor, SeriesFeatureExtractor) else None


def _features(args: TabularArguments, rows: AnyDataset) -> tuple[list[str], dict[str, str]]:
    """The features where the recipe lists none, and why other columns are none."""
    named = _no_features(args)
    also = {*(args.date_columns or []), *named_categories(args.category_columns)}
    if args.category_columns == AUTO:
        also |= {name for name in columns_of(rows, holds_categories) if not INDEX_COLUMN.fullmatch(name)}
    return numeric_columns(rows, named, also)


def _no_features(args: TabularArguments) -> dict[str, str | None]:
    """Field of the recipe -> column that is no feature, where the recipe names none."""
    return {**args.label_columns(), "split_column": args.split_column}


def _warn_of_row_numbers(rows: Dataset, columns: Sequence[str]) -> None:
    """Warn of columns that number the rows: an index, which says nothing of a row, among the features."""
    for name in columns:
        if numbers_rows(rows, name):
            ends = pc.min_max(rows.data.column(name)).as_py()
            logger.warning(
                "feature %r numbers the rows from %d to %d: if it is an index, leave it out by data.input_column",
                name,
                ends["min"],
                ends["max"],
            )


def numbers_rows(rows: Dataset, name: str) -> bool:
    """Whether a column holds whole numbers without a gap, each once, in a table large enough for that to be no chance."""
    values = rows.data.column(name)
    if not pa.types.is_integer(values.type) or len(values) < FEWEST_NUMBERED:
        return False
    ends = pc.min_max(values).as_py()
    if ends["max"] is None:
        return False
    return bool(ends["max"] - ends["min"] == len(values) - 1 == pc.count_distinct(values).as_py() - 1)


def feature_columns(args: TabularArguments, processor: Processor, train_split: AnyDataset) -> tuple[str, ...]:
    """The raw columns of the features, in the order the processor was made for.

    Raises:
        ValueError: A label is among the features, or a column that the processor was made for is not there.
    """
    if args.input_column is not None:
        return tuple(args.input_columns())
    columns = tuple(raw_columns(processor) or ())
    if columns and train_split.column_names:
        present = set(train_split.column_names)  # which datasets lists anew each time
        missing = [name for name in columns if name not in present]
        if missing:
            raise ValueError(
                f"data: the checkpoint was trained on the columns {list(columns)}, of which {missing} are not there; the columns "
                f"are {train_split.column_names}"
            )
    columns = columns or tuple(_features(args, train_split)[0])
    if read := [name for name in args.target_columns() if name in columns]:
        raise ValueError(
            f"data.label_column: the checkpoint was pre-trained with the label column {read[0]!r} among its features "
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
