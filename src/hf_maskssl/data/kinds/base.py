"""The interface of a kind of data: one object that knows the way from a recipe's arguments to batches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedConfig

from ...files import JsonObject, JsonView
from ...methods import optional_fields
from ...methods.optional_fields import pretraining_data_kind
from ..arguments import ARGUMENTS, DataArguments
from ..collators import BatchCollator
from ..kept_statistics import KeptStatistics, keep_statistics
from ..looking import columns_of, is_array
from ..processors import PROCESSOR_CLASSES, Processor
from ..tables.empty_rows import Inputs
from ..tables.labels import LabelSpace, measure_labels
from ..tables.preparing import PreparedSplit, RawSplit, filled_rows
from ..tables.report import DataReport
from ..tables.rows import Row
from ..tables.sources import AnyDataset
from ..tables.splits import limit_splits
from .examples import Example, tensors
from .guesses import Guess, only_column

Arguments = TypeVar("Arguments", bound=DataArguments)
# Field of the recipe -> its value in the words of a model card.
Summary = list[tuple[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """The parts that the training split decides for all splits.

    Attributes:
        processor: Processor that turns raw values into inputs; None where there is nothing to do.
        labels: Label space; None without labels.
        train_split: Raw rows of training.
        report: Report to which `Kind.rows` adds what only the processor tells, such as rows that are cut; None keeps none.
    """

    processor: Processor
    labels: LabelSpace | None
    train_split: AnyDataset
    report: DataReport | None = None


class Kind(ABC, Generic[Arguments]):
    """A kind of data, `data.kind`. `prepare_data` calls the methods in the order in which they stand here.

    A kind has no state. Packages may bring their own: `register_kind`.

    Attributes:
        name: Name in recipes.
        modality: Value of `model.modality` of the models that read it.
        arguments: Class of its recipe's data section.
        pipelines: Names on the Hub of classification and regression of such data, for model cards.
        processor_classes: Classes of processors that it brings along; checkpoints with them can then be loaded.
        read_by: Classes of processors of a model that reads it; None means `processor_classes`.
        own_data_recipe: Name of the package's recipe to start from where data alone do not say enough for a guess.
        reads_builtin: Whether the columns of the built-in sources need no name.
        not_inputs: Keys of a batch that are no inputs of the model in pre-training.
        picture: Function "module:function" that draws a model's output: `(model, batch, path, processor, args)` with a
            path of None where nothing is to be written, as in all processes but the main one, which must call it too.
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    arguments: type[Arguments]
    pipelines: ClassVar[tuple[str | None, str | None]] = (None, None)
    processor_classes: ClassVar[tuple[type, ...]] = ()
    read_by: ClassVar[tuple[type, ...] | None] = None
    own_data_recipe: ClassVar[str | None] = None
    reads_builtin: ClassVar[bool] = True
    not_inputs: ClassVar[tuple[str, ...]] = ("index", "labels")
    picture: ClassVar[str] = "hf_maskssl.pictures.pretraining:reconstruction"

    def check_model(self, args: Arguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        """Refuse a model of another kind of data.

        Args:
            args: The recipe's data section.
            config: Model configuration.
            for_pretraining: Whether to refuse another kind than the one on which alone a model is pre-trained.

        Raises:
            ValueError: `data.kind` and `model.modality`, or other fields, do not fit; the error names them.
        """
        if self.modality != config.modality:
            raise ValueError(
                f"data.kind {self.name!r} goes with model.modality {self.modality!r}, "
                f"but model.modality is {config.modality!r}"
            )
        if for_pretraining and (needed := pretraining_data_kind(config) or self.name) != self.name:
            raise ValueError(
                f"data.kind is {self.name!r}, but {config.model_type} is pre-trained on data of kind {needed!r}: set it to "
                f"{needed!r}"
            )

    def part_data(
        self, args: Arguments, config: PreTrainedConfig
    ) -> dict[str, tuple[DataArguments, PreTrainedConfig]]:
        """Name -> data section and configuration of each part, of a kind whose rows join those of others; else nothing.

        `prepare_data` prepares every part by the part's own kind, and calls none of the methods that follow.
        """
        return {}

    def completed(self, args: Arguments, config: PreTrainedConfig, for_pretraining: bool = False) -> Arguments:
        """The arguments, completed by the model's choices.

        Raises:
            ValueError: They do not fit the model.
        """
        return args

    def columns(self, args: Arguments, config: PreTrainedConfig) -> list[tuple[str, str | None]]:
        """(field of the recipe, column) of each column that every split must have; None where the recipe names none."""
        named = [*args.label_columns().items(), ("split_column", args.split_column)]
        return [*named, *(("input_column", column) for column in args.input_columns())]

    def limited(self, splits: dict[str, AnyDataset], args: Arguments) -> dict[str, AnyDataset]:
        """At most `max_<split>_samples` of each split."""
        return limit_splits(splits, args)

    def usable(self, rows: AnyDataset, args: Arguments, config: PreTrainedConfig, name: str) -> RawSplit:
        """A split without the rows that cannot be used, those whose input is empty; a warning counts them.

        Raises:
            ValueError: Too many rows cannot be used.
        """
        return filled_rows(rows, self.inputs(args), name)

    def inputs(self, args: Arguments) -> Inputs:
        """The columns of the inputs whose rows may be empty. A missing value among several columns of numbers is an error."""
        return [[args.input_column]] if isinstance(args.input_column, str) else []

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: Arguments, processor: Processor, report: DataReport
    ) -> None:
        """Add to a report what this kind alone knows of its raw rows; `processor` is a checkpoint's, None without."""
        return None

    def describe_columns(self, train: AnyDataset, args: Arguments, processor: Processor, report: DataReport) -> None:
        """Add to a report what this kind alone knows of the columns of the training rows, read or not."""
        return None

    def labels(
        self, args: Arguments, config: PreTrainedConfig, whole: AnyDataset, used: AnyDataset
    ) -> LabelSpace | None:
        """The label space, None without labels.

        Args:
            args: The recipe's data section.
            config: Model configuration.
            whole: Whole training split: a few rows might lack classes.
            used: Rows of it that are taken.

        Raises:
            ValueError: The labels do not fit `task`.
        """
        return measure_labels(args, whole)

    def ordered_as(self, args: Arguments, former: Processor, train_split: AnyDataset) -> Arguments:
        """The arguments for a processor that takes its inputs in the order of a former one, where they have names."""
        return args

    def with_statistics(
        self, processor: Processor, args: Arguments, former: Processor
    ) -> tuple[Processor, KeptStatistics]:
        """A new processor with the mean and standard deviation of a former one, where both know them and the recipe has none."""
        return keep_statistics(processor, former)

    @abstractmethod
    def build_processor(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> Processor:
        """The processor of a recipe, its statistics measured on raw training rows; None where there is nothing to do.

        Raises:
            ValueError: A recipe that does not fit the model or the data.
        """

    @abstractmethod
    def fitted_processor(
        self, processor: Processor, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        """A checkpoint's processor for this recipe and model.

        Raises:
            ValueError: It makes other inputs than the model needs; the error names both.
        """

    @abstractmethod
    def rows(
        self, split: RawSplit, args: Arguments, config: PreTrainedConfig, fitted: Fitted
    ) -> "PreparedSplit | TorchDataset[Row]":
        """Prepared rows: `len`, `[i]`, `select`, or `IterableDataset` of a stream.

        Raises:
            ValueError: A value cannot be prepared; the error names split, row and column.
        """

    @abstractmethod
    def collator(self, args: Arguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        """Prepared rows -> batch."""

    # What commands ask that are given data and no recipe.

    def reads(self, config: PreTrainedConfig, processor: Processor) -> bool:
        """Whether a model with this processor reads this kind of data."""
        classes = self.processor_classes if self.read_by is None else self.read_by
        return optional_fields.modality(config) == self.modality and isinstance(processor, classes)

    def fields_of_processor(self, processor: Processor) -> JsonObject:
        """The fields of the data section that a model's processor decides."""
        return {}

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        """The fields of the data section that name the input of a model, by names and types of the columns.

        Raises:
            ValueError: No column, or several, could be it; the error lists them.
        """
        return {"input_column": only_column(columns_of(rows, is_array), rows, self.name)}

    def name_input(
        self, columns: list[str], config: PreTrainedConfig, known: JsonView, is_unnamed: bool
    ) -> JsonObject:
        """The fields of the data section that name the input among the columns of rows in memory.

        Args:
            columns: Names of the columns.
            config: Model configuration.
            known: Fields of the data section that the user names; they come before these.
            is_unnamed: Whether rows are single values, which have no names; then there is one column.

        Raises:
            ValueError: Several columns could be it.
        """
        if len(columns) > 1 and "input_column" not in known:
            raise ValueError(f"data: rows have the columns {columns}: say which is the input (input_column)")
        return {"input_column": columns[0]}

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """What a model could read of rows that no recipe describes; None where they are not of this kind.

        Args:
            rows: Training rows as they come.
            label: Column that holds labels, which is no input; or None.
        """
        return None

    def summary(self, args: Arguments, config: PreTrainedConfig | None) -> Summary:
        """The kind's own arguments in the words of a model card; None values are left out."""
        return []

    def input_words(self, args: Arguments) -> str:
        """The input columns in the words of a model card."""
        return ", ".join(args.input_columns())

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: Arguments | None, task: str | None
    ) -> Example | None:
        """The code by which a model card makes two samples; None where another kind has this processor.

        Args:
            processor: Processor of the checkpoint.
            config: Model configuration.
            args: Data section of the recipe; None where it is unknown, as for converted checkpoints.
            task: Task of a fine-tuned model; None for an encoder.
        """
        return tensors(config) if processor is None else None


# Any: kinds differ in the class of their arguments.
KINDS: dict[str, Kind[Any]] = {}


def register_kind(kind: Kind[Any]) -> None:
    """Register a kind for recipes, `prepare_data` and model cards.

    Raises:
        ValueError: Its name is taken by a kind of another class, or `arguments` does not extend `DataArguments`.
    """
    known = KINDS.get(kind.name)
    if known is not None and type(known) is not type(kind):
        raise ValueError(f"data.kind {kind.name!r} is {type(known).__qualname__} already: give this kind another name")
    if not issubclass(kind.arguments, DataArguments):
        raise ValueError(f"kind {kind.name!r}: `arguments` must extend DataArguments, got {kind.arguments}")
    KINDS[kind.name] = kind
    ARGUMENTS[kind.name] = kind.arguments
    PROCESSOR_CLASSES.update({one.__name__: one for one in kind.processor_classes})


def find_kind(name: str) -> Kind[Any]:
    """The kind of a `data.kind` that has been checked: an unknown name is a programming error.

    Raises:
        KeyError: No such kind.
    """
    return KINDS[name]
