"""The columns of the modalities, and the processor of all of them."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedConfig

from ...models.image_processing_array import bit_depth_of
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ..tables.columns import undecoded
from ..tables.pictures import read_map
from ..tables.raw_files import encoded
from ..tables.sources import AnyDataset
from ..tables.statistics import MomentsOfBatch, measured_moments
from .arguments import MultimodalArguments
from .rows import MultimodalPreparer

logger = logging.getLogger(__name__)


def modality_columns(args: MultimodalArguments, config: PreTrainedConfig) -> dict[str, str]:
    """Modality -> column, of all that the model reads or predicts unless the recipe names fewer.

    Raises:
        ValueError: A modality that the model does not have, or a label among the inputs.
    """
    known = _sources(config)
    if isinstance(args.input_column, dict):
        columns = dict(args.input_column)
    else:
        columns = {"rgb": args.input_column} if isinstance(args.input_column, str) else {name: name for name in known}
    for name in columns:
        if name not in known:
            raise ValueError(f"data.input_column: the model has no modality {name!r}; model.modalities has {known}")
    if read := [name for name in args.target_columns() if name in columns.values()]:
        raise ValueError(
            f"data.label_column: {read[0]!r} is also an input ({columns}), so the model would read the answer: "
            "name the inputs without it in data.input_column"
        )
    return columns


def check_complete(args: MultimodalArguments, config: PreTrainedConfig) -> None:
    """Refuse a recipe of pre-training without a column for some modality; under `allow_missing` a warning says so.

    Raises:
        ValueError: A modality has no column; the error names it.
    """
    columns = modality_columns(args, config)
    missing = [name for name in _sources(config) if name not in columns]
    if not missing:
        return
    message = (
        f"data.input_column {columns} names no column of {missing}, which model.modalities has: its layers would never be "
        f"trained; take {missing[0]!r} out of model.modalities, or name its column"
    )
    if not args.allow_missing:
        raise ValueError(message)
    logger.warning("%s", message)


def _sources(config: PreTrainedConfig) -> list[str]:
    """Modalities with pictures of their own."""
    return [modality.name for modality in config.modality_table().values() if modality.source == modality.name]


def build_multimodal_processor(args: MultimodalArguments, config: PreTrainedConfig) -> MultiMAEImageProcessor:
    """The processor of a recipe; what `standardize: dataset` lacks is still to be measured.

    Raises:
        ValueError: Options of a modality that the model does not have, or options that the processor refuses.
    """
    _check_options(args, config)
    entries: dict[str, dict[str, Any]] = {}
    for modality in config.modality_table().values():
        if modality.source == modality.name:
            count = (
                {"num_classes": modality.num_classes}
                if modality.is_categorical
                else {"num_channels": modality.num_channels}
            )
            entries[modality.name] = {"kind": modality.kind, **count, "stride": modality.stride}
    for name, fields in (args.modality_options or {}).items():
        entries[name] |= fields
    processor = MultiMAEImageProcessor(entries)
    for entry in processor.modalities.values():
        if entry["kind"] == "continuous":
            # Raw numbers of an unknown range would be learnt badly, without any warning.
            entry.setdefault("standardize", "dataset")
    return fitted_processor(processor, args, config)


def fitted_processor(
    processor: MultiMAEImageProcessor, args: MultimodalArguments, config: PreTrainedConfig
) -> MultiMAEImageProcessor:
    """A copy that makes pictures of the model's size, cropped as the recipe says, with its `modality_options`.

    Options that ask for another standardisation than the processor has bring mean and standard deviation along, or these are
    still to be measured; without such options the processor keeps its own.

    Raises:
        ValueError: The model has modalities that the processor does not know, or knows otherwise; options of a modality
            that the model does not have, or options that the processor refuses.
    """
    _check_options(args, config)
    modalities = {name: dict(fields) for name, fields in processor.modalities.items()}
    for name, options in (args.modality_options or {}).items():
        modalities[name] = _with_options(name, modalities.get(name, {}), options)
    for modality in config.modality_table().values():
        entry = modalities.get(modality.source, {})
        count = entry.get("num_classes" if modality.is_categorical else "num_channels")
        wanted = modality.num_classes if modality.is_categorical else modality.num_channels
        if (entry.get("kind"), count, entry.get("stride", 1)) != (modality.kind, wanted, modality.stride):
            raise ValueError(
                f"the checkpoint's processor does not fit the model's modality {modality.source!r}: it has {entry}, the model "
                f"{modality.kind} with {wanted} channels or classes and stride {modality.stride}"
            )
    size = config.image_size
    return MultiMAEImageProcessor(
        modalities=modalities,
        image_size=size if isinstance(size, int) else list(size),
        ignore_index=config.semantic_loss_ignore_index,
        crop_fraction=args.crop_fraction,
        crop_scale=args.crop_scale,
        crop_ratio=args.crop_ratio,
        flip_probability=args.flip_probability,
        large_scale_jitter=args.augmentation_entries.large_scale_jitter,
    )


def _check_options(args: MultimodalArguments, config: PreTrainedConfig) -> None:
    known = _sources(config)
    for name in args.modality_options or {}:
        if name not in known:
            raise ValueError(f"data.modality_options: the model has no modality {name!r}; it has {known}")


def _with_options(name: str, entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    changed = {field: value for field, value in options.items() if field not in entry or entry[field] != value}
    if not changed:
        return dict(entry)
    logger.info("data.modality_options: modality %r gets %s instead of the processor's own", name, changed)
    kept = dict(entry)
    if "standardize" in changed:
        kept = {field: value for field, value in entry.items() if field not in ("mean", "std")}
    return {**kept, **options}


def measured_modalities(
    processor: MultiMAEImageProcessor, args: MultimodalArguments, config: PreTrainedConfig, train_split: AnyDataset
) -> MultiMAEImageProcessor:
    """The processor with mean and standard deviation of the modalities that are to have them and lack them.

    Raises:
        ValueError: A modality without a valid pixel, or a picture that cannot be prepared.
    """
    columns = modality_columns(args, config)
    for name, picture in processor.pictures().items():
        if picture.standardize != "dataset" or picture.mean is not None or name not in columns:
            continue
        preparer = MultimodalPreparer({name: columns[name]}, processor, allow_missing=True)
        pixels = functools.partial(preparer.pixels, name)
        found = measured_moments(
            MomentsOfBatch(preparer, pixels, f"{preparer.description()} {name}"), args, train_split
        )
        if found is None:
            raise ValueError(f"data.input_column {columns[name]!r}: the training split has no valid pixel of {name!r}")
        mean, std = found
        if (std == 0.0).any():
            logger.warning("channels of %r are constant in the training split, so only centred, not divided", name)
        fields = {"mean": mean.tolist(), "std": np.where(std == 0.0, 1.0, std).tolist()}
        processor.modalities[name] = {**processor.modalities[name], **fields}
    return processor


def with_bit_depths(
    processor: MultiMAEImageProcessor, args: MultimodalArguments, config: PreTrainedConfig, train_split: AnyDataset
) -> MultiMAEImageProcessor:
    """The processor with the depth that training pictures of one channel have, by the first of them; files alone have one.

    Raises:
        ValueError: A picture that cannot be opened.
    """
    is_rendered = args.builtin is not None and args.builtin.is_rendered
    for name, column in {} if is_rendered else modality_columns(args, config).items():
        if processor.pictures()[name].channels != 1 or processor.modalities[name].get("bit_depth") is not None:
            continue
        rows = undecoded(train_split.select_columns([column]), [column])
        cells = (row[column] for row in rows if row[column] is not None)
        picture = read_map(cell) if encoded(cell := next(cells, 0.0), "picture") is not None else None
        if isinstance(picture, Image.Image):
            processor.modalities[name] = {**processor.modalities[name], "bit_depth": bit_depth_of(picture)}
    return processor
