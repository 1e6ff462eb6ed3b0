"""What a kind of data is: one object that knows the way from a recipe's arguments to batches."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedConfig

from ...methods.optional_fields import pretraining_data_kind
from ..arguments import ARGUMENTS, DataArguments
from ..collators import BatchCollator
from ..processors import PROCESSOR_CLASSES, Processor
from ..tables.labels import LabelSpace, measure_labels
from ..tables.preparing import PreparedSplit, RawSplit
from ..tables.rows import Row
from ..tables.sources import AnyDataset
from ..tables.splits import limit_splits
from .examples import Example, tensors

Arguments = TypeVar("Arguments", bound=DataArguments)
# Field of the recipe -> the value as a model card says it.
Summary = list[tuple[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """What the training split has decided for all splits.

    Attributes:
        processor: What turns raw values into inputs; None where there is nothing to do.
        labels: What the labels are; None without.
        train_split: The raw training rows.
    """

    processor: Processor
    labels: LabelSpace | None
    train_split: AnyDataset


class Kind(ABC, Generic[Arguments]):
    """A kind of data, `data.kind`. `prepare_data` calls the methods in the order in which they stand here.

    A kind has no state. Packages may bring their own: `register_kind`.

    Attributes:
        name: As in recipes.
        modality: `model.modality` of the models that read it.
        arguments: The class of its recipe's data section.
        pipelines: The Hub's names of classification and regression of such data, for model cards.
        processor_classes: Of processors that it brings along; checkpoints with them can then be loaded.
        not_inputs: Keys of a batch that are no inputs of the model in pre-training.
        picture: "module:function" that draws what a model makes of a batch: `(model, batch, path, processor, args)` with a
            path of None where nothing is to be written, as in all processes but the main one, which must call it too.
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    arguments: type[Arguments]
    pipelines: ClassVar[tuple[str | None, str | None]] = (None, None)
    processor_classes: ClassVar[tuple[type, ...]] = ()
    not_inputs: ClassVar[tuple[str, ...]] = ("index", "labels")
    picture: ClassVar[str] = "hf_maskssl.pictures.pretraining:reconstruction"

    def check_model(self, args: Arguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        """Refuse a model of another kind of data.

        Args:
            args: The recipe's data section.
            config: Model configuration.
            for_pretraining: Whether a model that is pre-trained on one kind of data alone needs that.

        Raises:
            ValueError: Naming `data.kind` and `model.modality`, or what else does not fit.
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

    def completed(self, args: Arguments, config: PreTrainedConfig, for_pretraining: bool = False) -> Arguments:
        """The arguments with what the model decides of them.

        Raises:
            ValueError: They do not fit the model.
        """
        return args

    def columns(self, args: Arguments, config: PreTrainedConfig) -> list[tuple[str, str | None]]:
        """(field of the recipe, column) of everything that each split must have; None where the recipe names none."""
        named = [*args.label_columns().items(), ("split_column", args.split_column)]
        return [*named, *(("input_column", column) for column in args.input_columns())]

    def limited(self, splits: dict[str, AnyDataset], args: Arguments) -> dict[str, AnyDataset]:
        """At most `max_<split>_samples` of each split."""
        return limit_splits(splits, args)

    def usable(self, rows: AnyDataset, args: Arguments, config: PreTrainedConfig, name: str) -> RawSplit:
        """A split without the rows that cannot be used, which a warning names.

        Raises:
            ValueError: Too many of them.
        """
        return RawSplit(name, rows)

    def labels(
        self, args: Arguments, config: PreTrainedConfig, whole: AnyDataset, used: AnyDataset
    ) -> LabelSpace | None:
        """What the labels are, None without.

        Args:
            args: The recipe's data section.
            config: Model configuration.
            whole: The whole training split: a few rows might lack classes.
            used: Those of its rows that are taken.

        Raises:
            ValueError: Labels that are not of `task`.
        """
        return measure_labels(args, whole)

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
            ValueError: Naming what the processor makes and what is needed.
        """

    @abstractmethod
    def rows(
        self, split: RawSplit, args: Arguments, config: PreTrainedConfig, fitted: Fitted
    ) -> "PreparedSplit | TorchDataset[Row]":
        """Prepared rows: `len`, `[i]`, `select`, or `IterableDataset` of a stream.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """

    @abstractmethod
    def collator(self, args: Arguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        """Prepared rows -> batch."""

    def summary(self, args: Arguments, config: PreTrainedConfig | None) -> Summary:
        """What a model card says of the arguments that this kind alone has; None values are left out."""
        return []

    def input_words(self, args: Arguments) -> str:
        """The input columns, as a model card says them."""
        return ", ".join(args.input_columns())

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: Arguments | None, task: str | None
    ) -> Example | None:
        """How a model card makes two samples; None where another kind has this processor.

        Args:
            processor: Of the checkpoint.
            config: Model configuration.
            args: The recipe's data section; None where it is unknown, as of converted checkpoints.
            task: Of a fine-tuned model; None for an encoder.
        """
        return tensors(config) if processor is None else None


# Any: kinds differ in the class of their arguments.
KINDS: dict[str, Kind[Any]] = {}


def register_kind(kind: Kind[Any]) -> None:
    """Make a kind known to recipes, to `prepare_data` and to model cards.

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
    """The kind of a `data.kind`, whose arguments have been checked: a name that is not known is a programming error.

    Raises:
        KeyError: No such kind.
    """
    return KINDS[name]
