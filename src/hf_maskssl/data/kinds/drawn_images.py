"""Images that are cropped, mirrored and changed anew in every epoch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...models.image_processing_array import RESAMPLING, ArrayImageProcessor, converted
from ...models.image_processing_pictures import View, random_view
from ..augmentation.arguments import Augmentation
from ..augmentation.rows import RowChanges, draw_changes
from ..tables.draws import RowDraws
from .preparers import Raw, RowPreparer


@dataclass(frozen=True)
class DrawnImagePreparer(RowPreparer):
    """A `RowPreparer` of images that draws a view of each, and what else changes it.

    Attributes:
        draws: Random numbers of the rows; None prepares them as `RowPreparer` does.
        entries: What changes a picture beside its crop.
        crop_scale: Share of the picture's area, lowest and highest.
        crop_ratio: Width over height, lowest and highest, where 1 is the ratio of the processor's size.
        flip_probability: Probability that a row is mirrored.
    """

    draws: RowDraws | None = None
    entries: Augmentation = Augmentation()
    crop_scale: tuple[float, ...] = (0.2, 1.0)
    crop_ratio: tuple[float, ...] = (0.75, 4 / 3)
    flip_probability: float = 0.5

    @property
    def is_drawn(self) -> bool:
        return self.draws is not None

    def fixed(self) -> "DrawnImagePreparer":
        return dataclasses.replace(self, draws=None)

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on the views of this epoch, in worker processes as well."""
        if self.draws is not None:
            self.draws.set_epoch(epoch, seed)

    def prepared_number(self, raw: Raw, index: int, prepare: Callable[[Raw], np.ndarray]) -> np.ndarray:
        """A view of the image, changed and prepared."""
        if self.draws is None or self.numeric is None:
            return super().prepared_number(raw, index, prepare)
        processor = self.numeric.processor
        assert isinstance(processor, ArrayImageProcessor), "an image's processor"
        generator = self.draws.generator(index, *([np.asarray(raw)] if self.draws.is_stream else []))
        changes = draw_changes(self.entries, generator.spawn(1)[0]) if self.entries.changes_rows else None
        shown = self._shown(raw, processor, generator)
        if changes is None:
            return prepare(shown)
        if changes.changes_colours:
            shown = recoloured(shown, processor, changes)
        return changes.erase(prepare(shown))

    def _shown(self, raw: Raw, processor: ArrayImageProcessor, generator: np.random.Generator) -> Raw:
        picture = raw if isinstance(raw, Image.Image) else _rows_first(np.asarray(raw), processor.num_channels)
        size = (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]
        view = random_view(
            (int(size[0]), int(size[1])),
            processor.image_size,
            self.crop_scale,
            self.crop_ratio,
            self.flip_probability,
            generator,
        )
        return cut(picture, view)


def cut(picture: Image.Image | np.ndarray, view: View) -> Image.Image | np.ndarray:
    """The part of a PIL image, or of an array (H, W) or (H, W, C), that a view shows."""
    right, bottom = view.left + view.width, view.top + view.height
    if isinstance(picture, Image.Image):
        part = picture.crop((view.left, view.top, right, bottom))
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.is_flipped else part
    pixels = picture[view.top : bottom, view.left : right]
    return pixels[:, ::-1] if view.is_flipped else pixels


def recoloured(picture: Raw, processor: ArrayImageProcessor, changes: RowChanges) -> Image.Image:
    """A picture at the processor's size, its colours and places changed.

    Raises:
        ValueError: It is not of bytes in three channels.
    """
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3:
        picture = Image.fromarray(np.ascontiguousarray(picture)) if picture.shape[-1] == 3 else picture
    if processor.num_channels != 3 or not isinstance(picture, Image.Image):
        came = f"an array of {picture.dtype}" if isinstance(picture, np.ndarray) else "a picture"
        raise ValueError(
            f"colours are changed in pictures of bytes in 3 channels, got {came} for {processor.num_channels} channels: give "
            "bytes, or leave the colours out of data.augmentation"
        )
    height, width = processor.image_size
    whole = converted(picture, 3)
    assert isinstance(whole, Image.Image), "three channels are bytes"
    return changes.colours(whole.resize((width, height), RESAMPLING[processor.resample]))


def _rows_first(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) or (H, W, C) of an array that may have its channels first, as `ArrayImageProcessor` reads it."""
    is_first = pixels.ndim == 3 and (pixels.shape[0] == channels or pixels.shape[-1] != channels)
    return np.moveaxis(pixels, 0, -1) if is_first else pixels
