"""Kind "image": images or arrays with any number of channels, such as satellite bands."""

from dataclasses import dataclass
from typing import TypeVar

from transformers import PreTrainedConfig

from ...models.image_processing_array import ArrayImageProcessor
from ..processors import Processor
from ..tables.picture_survey import surveyed_bit_depth
from ..tables.sources import AnyDataset
from .examples import Example, arrays
from .numeric import NumericArguments, NumericKind
from .preparers import ImageInput, NumericInput, SampleProcessor


@dataclass
class ImageArguments(NumericArguments):
    """Arguments of images. `input_column` is one column of images, paths, or (H, W), (H, W, C) or (C, H, W) arrays.

    Relative paths start at the folder of the table that holds them, or else at the current directory.
    """

    kind: str = "image"

    @property
    def file_columns(self) -> list[str]:
        return self.input_columns()


Arguments = TypeVar("Arguments", bound=NumericArguments)


class ImageInputs(NumericKind[Arguments]):
    """The base of images with and without a text."""

    input_name = "pixel_values"

    def unmeasured(self, args: Arguments, config: PreTrainedConfig, train_split: AnyDataset) -> SampleProcessor:
        return ArrayImageProcessor(
            num_channels=config.num_channels,
            image_size=image_size(config),
            scale=args.scale,
            standardize=args.standardize,
            bit_depth=surveyed_bit_depth(args, train_split, str(args.input_column), config.num_channels),
            invalid_value=args.invalid_value,
        )

    def numeric_input(self, args: Arguments, processor: SampleProcessor, train_split: AnyDataset) -> NumericInput:
        return ImageInput(self.input_name, tuple(args.input_columns()), processor, missing=args.missing)

    def sizes(self, processor: object, config: PreTrainedConfig) -> tuple[list[int], list[int]] | None:
        if not isinstance(processor, ArrayImageProcessor):
            return None
        return [config.num_channels, *image_size(config)], [processor.num_channels, *processor.image_size]


class ImageKind(ImageInputs[ImageArguments]):
    """Images."""

    name = "image"
    modality = "image"
    arguments = ImageArguments
    pipelines = ("image-classification", None)

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
