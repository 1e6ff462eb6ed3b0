"""What happens to the pictures of one row: drawn once, applied to each of them."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .arguments import Augmentation
from .colours import draw_colours
from .rand_augment import Operation, draw_rand_augment, moved

FILL = (124, 116, 104)  # ImageNet's mean colour, as timm fills
ERASING_ATTEMPTS = 10


@dataclass(frozen=True)
class RowChanges:
    """The changes of one row.

    Attributes:
        operations: What is done to colours, and to the places of all pictures, in order.
        erased: Share of the picture's area and height over width of a rectangle to erase, several attempts; empty erases none.
        seed: Seed of the rectangle's place and its noise.
    """

    operations: tuple[Operation, ...] = ()
    erased: tuple[tuple[float, float], ...] = ()
    seed: int = 0

    @property
    def changes_colours(self) -> bool:
        """Whether there is any operation."""
        return bool(self.operations)

    def colours(self, picture: Image.Image) -> Image.Image:
        """A changed picture of mode RGB, of the same size."""
        for operation in self.operations:
            if operation.colours is not None:
                picture = operation.colours(picture)
            if operation.places is not None:
                picture = moved(picture, operation.places, FILL, smooth=True)
        return picture

    def values(self, values: np.ndarray) -> np.ndarray:
        """Values (C, h, w) float32 moved as the colours are, NaN where nothing was."""
        for operation in self.operations:
            if operation.places is not None:
                planes = [moved(Image.fromarray(plane), operation.places, math.nan, smooth=False) for plane in values]
                values = np.stack([np.asarray(plane) for plane in planes])
        return values

    def classes(self, ids: np.ndarray, ignore_index: int) -> np.ndarray:
        """Class ids (h, w) int64 moved as the colours are, `ignore_index` where nothing was."""
        for operation in self.operations:
            if operation.places is not None:
                picture = moved(Image.fromarray(ids.astype(np.int32)), operation.places, ignore_index, smooth=False)
                ids = np.asarray(picture).astype(np.int64)
        return ids

    def erase(self, values: np.ndarray) -> np.ndarray:
        """Standardised values (C, h, w), a rectangle of them replaced by noise of mean 0 and standard deviation 1."""
        generator = np.random.default_rng(self.seed)
        height, width = values.shape[1:]
        for share, ratio in self.erased:
            box = (round(math.sqrt(share * height * width * ratio)), round(math.sqrt(share * height * width / ratio)))
            if 0 < box[0] < height and 0 < box[1] < width:
                top, left = int(generator.integers(height - box[0] + 1)), int(generator.integers(width - box[1] + 1))
                erased = values.copy()
                noise = generator.standard_normal((len(values), *box), dtype=np.float32)
                erased[:, top : top + box[0], left : left + box[1]] = noise
                return erased
        return values


def draw_changes(entries: Augmentation, generator: np.random.Generator) -> RowChanges:
    """The changes of one row."""
    operations = [Operation(change) for change in draw_colours(entries, generator)]
    operations += draw_rand_augment(entries, generator)
    erased: list[tuple[float, float]] = []
    if generator.random() < entries.erasing_probability:
        low, high = (math.log(bound) for bound in entries.erasing_ratio)
        for _ in range(ERASING_ATTEMPTS):
            share = float(generator.uniform(entries.erasing_area[0], entries.erasing_area[1]))
            erased.append((share, math.exp(generator.uniform(low, high))))
    return RowChanges(tuple(operations), tuple(erased), int(generator.integers(2**63)))
