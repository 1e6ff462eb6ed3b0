"""Kind "image": images or arrays with any number of channels, such as satellite bands."""

import statistics
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from transformers import PreTrainedConfig

from ...checks import ABOVE_0, SHARE, Range
from ...files import JsonObject
from ...models.image_processing_array import ArrayImageProcessor
from ...terminal import counted
from ..augmentation.arguments import Augmentation, augmentation_words, parse_augmentation
from ..looking import columns_of, file_column, file_like_columns, is_file, is_picture_array
from ..processors import Processor, split_processor
from ..tables.columns import undecoded
from ..tables.draws import RowDraws
from ..tables.first_rows import first_rows
from ..tables.picture_survey import surveyed_bit_depth, tell_of_bands
from ..tables.pictures import read_image
from ..tables.preparing import PreparedSplit, RawSplit, prepare_split
from ..tables.sources import AnyDataset
from .base import Fitted, Summary
from .drawn_images import DrawnImagePreparer
from .examples import Example, arrays
from .guesses import FILES, Guess, metamae, only_column
from .numeric import NumericArguments, NumericKind
from .preparers import ImageInput, NumericInput, SampleProcessor


@dataclass
class ImageArguments(NumericArguments):
    """Arguments of images. `input_column` is one column of images, paths, or (H, W), (H, W, C) or (C, H, W) arrays.

    Relative paths start at the folder of the table that holds them, or else at the current directory.

    Attributes:
        augment: Whether to crop and mirror training rows at random, anew in every epoch; `cache` then has no meaning for them.
            The draws depend on `split_seed`, the run's seed, the epoch and the row alone, so a resumed run draws the same.
        crop_scale: Share of the picture's area that a random crop has, lowest and highest.
        crop_ratio: Width of a random crop over its height, lowest and highest, where 1 is the ratio of the model's `image_size`.
        flip_probability: Probability that a row is mirrored.
        augmentation: What else changes training rows with `augment`: entries such as {rand_augment_magnitude: 9,
            erasing_probability: 0.25} or {color_jitter: [0.4, 0.4, 0.2, 0.1], blur_probability: 0.1}, all of which
            docs/finetuning.md lists. Colours are changed in pictures of bytes in three channels alone.
    """

    kind: str = "image"
    augment: bool = False
    crop_scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    flip_probability: float = 0.5
    augmentation: dict[str, Any] | None = None

    RANGES: ClassVar[dict[str, Range]] = {
        **NumericArguments.RANGES,
        "crop_scale": Range(0, 1, excludes_low=True),
        "crop_ratio": ABOVE_0,
        "flip_probability": SHARE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            bounds = vars(self)[name]
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"data.{name}: expected two numbers, the lower first, got {bounds}")
        parse_augmentation(self.augmentation, self.augment, jitters_scale=False)

    @property
    def augmentation_entries(self) -> Augmentation:
        """`augmentation`, complete."""
        return parse_augmentation(self.augmentation, self.augment, jitters_scale=False)

    @property
    def file_columns(self) -> list[str]:
        return self.input_columns()


Arguments = TypeVar("Arguments", bound=NumericArguments)


class ImageInputs(NumericKind[Arguments]):
    """The base of images with and without a text."""

    input_name = "pixel_values"
    read_by: ClassVar[tuple[type, ...] | None] = (ArrayImageProcessor,)

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        return {"input_column": only_column(file_like_columns(rows), rows, self.name, ("image", "path", "file"))}

    def unmeasured(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        column = str(args.input_column)
        tell_of_bands(args, train_split, column, config.num_channels, args.invalid_value)
        return ArrayImageProcessor(
            num_channels=config.num_channels,
            image_size=image_size(config),
            scale=args.scale,
            standardize=args.standardize,
            bit_depth=surveyed_bit_depth(args, train_split, column, config.num_channels),
            invalid_value=args.invalid_value,
        )

    def numeric_input(self, args: Arguments, processor: SampleProcessor, train_split: AnyDataset) -> NumericInput:
        return ImageInput(self.input_name, tuple(args.input_columns()), processor, missing=args.missing)

    def sizes(self, processor: object, config: PreTrainedConfig) -> tuple[list[int], list[int]] | None:
        if not isinstance(processor, ArrayImageProcessor):
            return None
        return [config.num_channels, *image_size(config)], [processor.num_channels, *processor.image_size]


PICTURES_LOOKED_AT = 64


class ImageKind(ImageInputs[ImageArguments]):
    """Images."""

    name = "image"
    modality = "image"
    arguments = ImageArguments
    pipelines = ("image-classification", None)

    def rows(self, split: RawSplit, args: ImageArguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        """Prepared rows, those of training drawn anew in every epoch where they are augmented."""
        if not args.augment or split.name != "train":
            return super().rows(split, args, config, fitted)
        processor = cast(SampleProcessor, split_processor(fitted.processor)[0])
        preparer = DrawnImagePreparer(
            numeric=self.numeric_input(args, processor, fitted.train_split),
            label_column=args.label_column,
            labels=fitted.labels,
            split=split.name,
            row_numbers=split.numbers,
            draws=RowDraws(args.split_seed, args.streaming),
            entries=args.augmentation_entries,
            crop_scale=tuple(args.crop_scale),
            crop_ratio=tuple(args.crop_ratio),
            flip_probability=args.flip_probability,
        )
        return prepare_split(split.rows, preparer, args)

    def summary(self, args: ImageArguments, config: PreTrainedConfig | None) -> Summary:
        words = [("training pictures", augmentation_words(args))] if args.augment else []
        return [*super().summary(args, config), *words]

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """Pictures in files or arrays of bytes: about 8 x 8 patches; larger pictures are brought down to 64 pixels."""
        column = file_column(rows, "imagefolder") or next(iter(columns_of(rows, is_picture_array)), None)
        if column is None:
            return None
        found = first_rows(undecoded(rows, [column]), PICTURES_LOOKED_AT)
        arrays = [np.asarray(read_image(row[column], with_bands=True)) for row in found if row[column] is not None]
        if not arrays:
            return None
        channels = statistics.mode(1 if array.ndim == 2 else min(array.shape[0], array.shape[-1]) for array in arrays)
        is_last = [array.ndim == 2 or array.shape[-1] == channels for array in arrays]
        sides = [array.shape[:2] if last else array.shape[1:] for array, last in zip(arrays, is_last, strict=True)]
        short = statistics.median(min(one) for one in sides)
        patch = max(1, min(8, round(short / 8)))
        size = 8 * patch if short >= 8 * patch else patch * max(2, int(short) // patch)
        fields = {"image_size": [size, size], "num_channels": channels, "patch_size": [patch, patch]}
        remarks = [f"pictures: {counted(channels, 'channel')}, brought to {size} x {size} pixels; --image_size"]
        others = [name for name in columns_of(rows, is_file) if name != column]
        if others:
            remarks.append(
                f"left out: the pictures in {', '.join(others)}; --input_column names another; `hf-maskssl recipes copy "
                "multimae_own_data` reads several together"
            )
        return Guess(
            FILES,
            f"pictures in {column!r}",
            {"input_column": column},
            {"modality": self.modality, **fields, **metamae(0.5)},
            remarks=remarks,
        )

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: ImageArguments | None, task: str | None
    ) -> Example | None:
        if isinstance(processor, ArrayImageProcessor):
            return picture_example(processor)
        return super().example(processor, config, args, task)


def image_size(config: PreTrainedConfig) -> list[int]:
    """[H, W] of a configuration that may give one number for both."""
    size = config.image_size
    return [size, size] if isinstance(size, int) else list(size)


def picture_example(processor: ArrayImageProcessor) -> Example:
    """Two images for a model card."""
    shape = ", ".join(map(str, [2, processor.num_channels, *processor.image_size]))
    kinds = "PIL images or arrays" if processor.num_channels in (1, 3, 4) else "arrays"
    return arrays("images", f"images = np.random.rand({shape})  # {kinds} of any size", "AutoImageProcessor")
