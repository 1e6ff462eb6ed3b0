"""Image processor for pictures with any number of channels, and the one conversion of PIL images that all processors make."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import TensorType

from .field_checks import SizesAsPairs
from .standardization import (
    Array,
    Numbers,
    as_model_inputs,
    beyond_range,
    check_statistics,
    standardize,
    without_invalid,
)

PILLOW_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A picture, or several of them.
Pictures: TypeAlias = Image.Image | Numbers | Sequence["Pictures"]
ORIENTATION_TAG = 0x0112
# What Pillow raises for broken files of one format or another: its plugins read bytes that nobody has checked.
PILLOW_ERRORS = (
    *(
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        RuntimeError,
        MemoryError,
    ),
    *(
        LookupError,
        ArithmeticError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ),
)
BIT_DEPTHS = (8, 16, 32)


def upright(picture: Image.Image) -> Image.Image:
    """A picture as its EXIF orientation means it; the same object where there is nothing to turn.

    Raises:
        ValueError: Its EXIF data cannot be read.
    """
    try:
        is_turned = picture.getexif().get(ORIENTATION_TAG, 1) != 1
        return ImageOps.exif_transpose(picture) if is_turned else picture
    except PILLOW_ERRORS as error:
        raise ValueError(f"its EXIF data cannot be read: {type(error).__name__}: {error}") from error


def bit_depth_of(picture: Image.Image) -> int:
    """Bits of a number of a picture: 8 (1-bit pictures become bytes), 16, or 32 for modes I and F, which have no full range."""
    if picture.mode == "I":
        # Early versions of Pillow open 16-bit PNG files in this mode.
        return 16 if picture.format == "PNG" else 32
    return 16 if picture.mode.startswith("I;16") else 32 if picture.mode == "F" else 8


def converted(picture: Image.Image, channels: int, bit_depth: int | None = None) -> Image.Image | np.ndarray:
    """An upright picture with as many channels as wanted, its numbers in the range of one bit depth.

    Args:
        picture: PIL image of any mode, on which an EXIF orientation may still stand.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        bit_depth: 8 or 16: greys of the other depth are brought to its range, 0..255 or 0..65535; 32: modes I and F alone,
            whose numbers are kept. None keeps greys as they are. Colours are always bytes, so 16-bit greys become bytes too.

    Returns:
        Bytes as a PIL image of mode L, RGB or RGBA; other greys as an array (H, W) of their own type.

    Raises:
        ValueError: Another number of channels; a depth that cannot be brought to the one wanted; a mode that Pillow does not
            convert; EXIF data that cannot be read.
    """
    bits = bit_depth_of(picture)
    if channels not in PILLOW_MODES:
        raise ValueError(
            f"expected {channels} channels (num_channels), got a picture in mode {picture.mode}; "
            "pictures have 1, 3 or 4, give arrays instead"
        )
    picture = upright(picture)
    wanted = bits if bit_depth is None else bit_depth
    wanted = wanted if channels == 1 else 8
    if bits != wanted and 32 in (bits, wanted):
        raise ValueError(
            f"expected {channels} channel{'s' * (channels > 1)} (num_channels) of {wanted} bit, got a picture in mode "
            f"{picture.mode} of {bits} bit, whose full range nothing tells: bring all pictures to one depth"
        )
    if bits == 16 and wanted == 8:
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    elif bits > 8:
        return np.asarray(picture)
    if picture.mode != PILLOW_MODES[channels]:
        try:
            picture = picture.convert(PILLOW_MODES[channels])
        except ValueError as error:
            raise ValueError(
                f"a picture in mode {picture.mode} cannot become {PILLOW_MODES[channels]}: {error}"
            ) from error
    return np.asarray(picture).astype(np.uint16) * 257 if wanted == 16 else picture


class ArrayImageProcessor(SizesAsPairs, BaseImageProcessor):
    """Resizes, scales and standardises PIL images and NumPy arrays with any number of channels.

    Args:
        num_channels: Channels C. PIL images are turned upright and converted to grey (1), RGB (3) or RGBA (4).
        image_size: [H, W] of the result, or one number for a square. The aspect ratio is not kept.
        resample: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`, as Pillow does them.
        scale: Raw values are multiplied by this after resizing (1/255 for bytes).
        standardize: `"dataset"` (by `mean` and `std`), `"sample"` (per channel, by the sample's own) or `"none"`.
        mean: Means for `"dataset"`: one number per channel, in scaled values.
        std: Standard deviations, positive, one per channel.
        bit_depth: Bits of the grey pictures of training, 8, 16 or 32, whose range PIL images are brought to (`converted`).
            None keeps greys as they come; arrays always keep their numbers.
        invalid_value: Raw value that says that none was measured, as NaN always does.

    Raises:
        ValueError: Sizes that cannot be, or statistics that do not fit.
    """

    model_input_names = ["pixel_values", "observed_mask"]

    def __init__(
        self,
        num_channels: int = 3,
        image_size: int | Sequence[int] = 224,
        resample: str = "bilinear",
        scale: float = 1.0,
        standardize: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bit_depth: int | None = None,
        invalid_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if bit_depth not in (None, *BIT_DEPTHS):
            raise ValueError(f"bit_depth: expected one of {list(BIT_DEPTHS)} or None, got {bit_depth!r}")
        if resample not in RESAMPLING:
            raise ValueError(f"resample: expected one of {list(RESAMPLING)}, got {resample!r}")
        size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(size) != 2 or min(size) < 1 or num_channels < 1:
            raise ValueError(f"expected positive num_channels and image_size [H, W], got {num_channels} and {size}")
        self.num_channels = num_channels
        self.image_size = size
        self.resample = resample
        self.scale = scale
        self.standardize = standardize
        self.mean, self.std = check_statistics(standardize, mean, std, num_channels)
        self.bit_depth = bit_depth
        self.invalid_value = invalid_value

    def preprocess(
        self, images: Pictures, *args: object, return_tensors: str | TensorType | None = None, **kwargs: object
    ) -> BatchFeature:
        """Prepare one image or a batch; calling the processor does this.

        Args:
            images: One image: PIL, or an array (or nested lists) of shape (H, W) when C is 1, (C, H, W) or (H, W, C).
                Or a batch: a sequence of images or an array with four dimensions.
            return_tensors: `"pt"` or `"np"` for one tensor, None for a list of arrays.

        Returns:
            `pixel_values`, (B, C, H, W) float32; and where values are missing, `observed_mask`, bool of the same shape,
            True = observed.

        Raises:
            ValueError: Another number of channels, infinite values, or an image in which everything is missing.
            TypeError: Any other argument: the steps are set when the processor is made.
        """
        if args or kwargs:
            raise TypeError(f"expected images and return_tensors alone, got also {[*args, *kwargs]}")
        samples = [self.prepare_sample(image) for image in _as_batch(images)]
        if not samples:
            raise ValueError("images: expected at least one, got an empty batch")
        return BatchFeature(as_model_inputs("pixel_values", samples), tensor_type=return_tensors)

    def prepare_sample(self, sample: Pictures) -> np.ndarray:
        """One image as a resized, scaled and standardised (C, H, W) float32 array, NaN = missing.

        Raises:
            ValueError: Another number of channels, not an image, or infinite values.
        """
        return standardize(self.scaled_values(sample), self.standardize, self.mean, self.std).astype(np.float32)

    def scaled_values(self, sample: Pictures) -> np.ndarray:
        """The image in float64 before standardising: the values whose mean and standard deviation are measured.

        Missing ones are NaN. A resized pixel is the mean of what was observed of it, and missing where that is at most half.
        """
        pixels = self._resize_picture(sample) if isinstance(sample, Image.Image) else self._resize_array(sample)
        return pixels * self.scale

    def first_missing(self, sample: Pictures) -> str | None:
        """The place of the first missing value of an image, for messages; None where nothing is missing."""
        places = np.argwhere(np.isnan(self.scaled_values(sample)))
        return "channel {}, row {}, column {}".format(*places[0].tolist()) if len(places) else None

    def _resize_picture(self, original: Image.Image) -> np.ndarray:
        picture = converted(original, self.num_channels, self.bit_depth)
        if isinstance(picture, np.ndarray) or self.invalid_value is not None:
            return self._resize_array(np.asarray(picture))
        height, width = self.image_size
        if picture.size != (width, height):
            picture = picture.resize((width, height), RESAMPLING[self.resample])
        pixels = np.asarray(picture, dtype=np.float64)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    def _resize_array(self, sample: Pictures) -> np.ndarray:
        pixels = without_invalid(self._channels_first(sample), self.invalid_value)
        if beyond_range(pixels).any():
            channel, row, column = np.argwhere(beyond_range(pixels))[0]
            raise ValueError(
                f"channel {channel}, row {row}, column {column} is {pixels[channel, row, column]}: "
                "make it NaN (missing), or drop the image"
            )
        height, width = self.image_size
        if pixels.shape[1:] == (height, width):
            return pixels
        is_missing = np.isnan(pixels)
        if not is_missing.any():
            return self._resized(pixels)
        share = self._resized(1.0 - is_missing)
        is_shown = share > 0.5
        values = self._resized(np.where(is_missing, 0.0, pixels)) / np.where(is_shown, share, 1.0)
        return np.where(is_shown, values, np.nan)

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        """(C, H, W) floats at the size of the result."""
        height, width = self.image_size
        # Pillow has no picture with other than 1, 3 or 4 channels, and only its grey mode is not limited to bytes.
        resized = [
            Image.fromarray(channel.astype(np.float32)).resize((width, height), RESAMPLING[self.resample])
            for channel in pixels
        ]
        return np.stack([np.asarray(channel, dtype=np.float64) for channel in resized])

    def _channels_first(self, sample: Pictures) -> np.ndarray:
        try:
            pixels = np.asarray(sample, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected an image, an array of numbers: {error}") from error
        if pixels.ndim == 2:
            pixels = pixels[None]
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise ValueError(f"expected an image of shape (H, W), (C, H, W) or (H, W, C), got {pixels.shape}")
        if pixels.shape[0] != self.num_channels and pixels.shape[-1] == self.num_channels:
            pixels = np.moveaxis(pixels, -1, 0)
        if pixels.shape[0] != self.num_channels:
            raise ValueError(f"expected {self.num_channels} channels (num_channels), got an array {pixels.shape}")
        return pixels


def _as_batch(images: Pictures) -> Sequence[Pictures]:
    if isinstance(images, Image.Image | float | int):
        return [images]
    if isinstance(images, Array):
        return [*images] if images.ndim == 4 else [images]
    holds_images = len(images) == 0 or isinstance(images[0], Image.Image | Array)
    return images if holds_images or np.asarray(images[0]).ndim == 3 else [images]
