"""Kind "multimodal"."""

import dataclasses
import logging

from transformers import PreTrainedConfig

from ...files import JsonObject, JsonView
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ..augmentation.arguments import augmentation_words
from ..kept_statistics import KeptStatistics, keep_statistics
from ..kinds.base import Fitted, Kind, Summary
from ..kinds.examples import Example
from ..looking import columns_of, is_file
from ..processors import Processor
from ..tables.draws import RowDraws
from ..tables.labels import LabelSpace
from ..tables.preparing import PreparedSplit, RawSplit, prepare_split
from ..tables.sources import AnyDataset, column_names
from .arguments import MultimodalArguments
from .checks import readable_rows
from .classes import measure_label_maps
from .collator import MultimodalCollator
from .examples import aligned_pictures, aligned_tensors
from .processor import (
    build_multimodal_processor,
    check_complete,
    fitted_processor,
    measured_modalities,
    modality_columns,
    with_bit_depths,
)
from .rows import MultimodalPreparer

logger = logging.getLogger(__name__)


class MultimodalKind(Kind[MultimodalArguments]):
    """Several aligned pictures of one scene."""

    name = "multimodal"
    modality = "multimodal"
    arguments = MultimodalArguments
    pipelines = ("image-classification", None)
    picture = "hf_maskssl.pictures.pretraining:modalities"
    read_by = (MultiMAEImageProcessor,)
    own_data_recipe = "multimae_own_data"
    reads_builtin = False

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        """The columns named like the modalities that the model reads; one column of pictures alone is rgb."""
        names = [modality.name for modality in config.inputs()]
        present = {name: name for name in names if name in column_names(rows)}
        if present:
            return {"input_column": present}
        pictures = columns_of(rows, is_file)
        if "rgb" in names and len(pictures) == 1:
            return {"input_column": {"rgb": pictures[0]}}
        raise ValueError(
            f"data.input_column: expected columns named like the modalities {names}; the columns are {column_names(rows)}: "
            "name them by --input_column"
        )

    def name_input(
        self, columns: list[str], config: PreTrainedConfig, known: JsonView, is_unnamed: bool
    ) -> JsonObject:
        """Dicts have modalities; a value without a name is of the first modality."""
        names = [modality.name for modality in config.inputs()]
        named = dict(zip(names, columns, strict=False)) if is_unnamed else {name: name for name in columns}
        return {"input_column": named, "allow_missing": True}

    def completed(
        self, args: MultimodalArguments, config: PreTrainedConfig, for_pretraining: bool = False
    ) -> MultimodalArguments:
        """The arguments with every column named, so that folders beside those of the modalities are not read."""
        args = dataclasses.replace(args, input_column=modality_columns(args, config))
        if for_pretraining:
            check_complete(args, config)
        return args

    def usable(self, rows: AnyDataset, args: MultimodalArguments, config: PreTrainedConfig, name: str) -> RawSplit:
        """A split without the rows whose pictures cannot be opened."""
        return readable_rows(rows, modality_columns(args, config), args, name, config)

    def labels(
        self, args: MultimodalArguments, config: PreTrainedConfig, whole: AnyDataset, used: AnyDataset
    ) -> LabelSpace | None:
        """The label space; classes of maps are counted in the rows that are taken."""
        if args.label_maps:
            return measure_label_maps(args, config.semantic_loss_ignore_index, used)
        return super().labels(args, config, whole, used)

    def build_processor(
        self, args: MultimodalArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        processor = with_bit_depths(build_multimodal_processor(args, config), args, config, train_split)
        return measured_modalities(processor, args, config, train_split)

    def with_statistics(
        self, processor: Processor, args: MultimodalArguments, former: Processor
    ) -> tuple[Processor, KeptStatistics]:
        options = args.modality_options or {}
        return keep_statistics(processor, former, [name for name, fields in options.items() if "mean" in fields])

    def fitted_processor(
        self, processor: Processor, args: MultimodalArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        """A checkpoint's processor with this recipe's `modality_options`, and statistics of modalities without any."""
        return measured_modalities(
            fitted_processor(require_multimodal(processor), args, config), args, config, train_split
        )

    def rows(
        self, split: RawSplit, args: MultimodalArguments, config: PreTrainedConfig, fitted: Fitted
    ) -> PreparedSplit:
        is_drawn = args.augment and split.name == "train"
        columns, processor = modality_columns(args, config), require_multimodal(fitted.processor)
        turned = [name for name in columns if processor.pictures()[name].flips_x]
        if turned and args.augmentation_entries.rand_augment_magnitude is not None:
            raise ValueError(
                "data.augmentation.rand_augment_magnitude turns pictures, but not the directions in them, which the modalities "
                f"{turned} hold (flips_x): leave RandAugment out"
            )
        preparer = MultimodalPreparer(
            columns=columns,
            processor=processor,
            label_column=args.label_column,
            labels=fitted.labels,
            label_scale=1.0 if args.label_scale is None else args.label_scale,
            label_invalid_value=args.label_invalid_value,
            label_clip=None if args.label_clip is None else tuple(args.label_clip),
            label_flips_x=args.label_flips_x,
            allow_missing=args.allow_missing,
            entries=args.augmentation_entries,
            augmentation=RowDraws(args.split_seed, args.streaming) if is_drawn else None,
            split=split.name,
            row_numbers=split.numbers,
        )
        return prepare_split(split.rows, preparer, args)

    def collator(
        self, args: MultimodalArguments, config: PreTrainedConfig, processor: Processor
    ) -> MultimodalCollator:
        pictures = require_multimodal(processor)
        classes = {name: one.num_classes for name, one in pictures.pictures().items() if one.channels is None}
        return MultimodalCollator(modality_columns(args, config), classes, pictures.ignore_index)

    def summary(self, args: MultimodalArguments, config: PreTrainedConfig | None) -> Summary:
        """The augmentation of training rows, which changes all pictures of a row alike."""
        if not args.augment:
            return []
        return [("training pictures", augmentation_words(args))]

    def input_words(self, args: MultimodalArguments) -> str:
        if not isinstance(args.input_column, dict):
            return super().input_words(args) or "named as the modalities"
        return ", ".join(
            column if column == modality else f"{column} ({modality})"
            for modality, column in args.input_column.items()
        )

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: MultimodalArguments | None, task: str | None
    ) -> Example | None:
        if isinstance(processor, MultiMAEImageProcessor):
            return aligned_pictures(processor, config, task)
        return aligned_tensors(config, task) if processor is None else None


def require_multimodal(processor: Processor) -> MultiMAEImageProcessor:
    """A checkpoint's processor of several pictures.

    Raises:
        ValueError: The processor is another one.
    """
    if not isinstance(processor, MultiMAEImageProcessor):
        raise ValueError(
            f"data.kind 'multimodal' cannot be prepared by the checkpoint's processor, a {type(processor).__name__}"
        )
    return processor
