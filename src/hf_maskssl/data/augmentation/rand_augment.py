"""RandAugment (Cubuk et al. 2020) with timm's operations, of which all grow with the magnitude (its "inc1")."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageChops, ImageOps

from .arguments import Augmentation
from .colours import Change, enhanced, solarized

HIGHEST = 10.0  # magnitude
# Largest changes, at the highest magnitude.
DEGREES, SHEAR, SHIFT, ENHANCEMENT = 30.0, 0.3, 0.45, 0.9
LEAST_FACTOR = 0.1
POSTERIZED_BITS, ADDED, ADDED_BELOW = 4, 110, 128

# The places (x, y) in a picture of a width and a height that the result's pixels show: Pillow's six numbers of an affine map.
Affine: TypeAlias = Callable[[int, int], tuple[float, float, float, float, float, float]]


@dataclass(frozen=True)
class Operation:
    """One step of RandAugment: of the colours, or of the places of all pictures of a row."""

    colours: Change | None = None
    places: Affine | None = None


def draw_rand_augment(entries: Augmentation, generator: np.random.Generator) -> list[Operation]:
    """The operations of one row, none without `rand_augment_magnitude`."""
    if entries.rand_augment_magnitude is None:
        return []
    found = []
    for place in generator.integers(len(OPERATIONS), size=entries.rand_augment_operations).tolist():
        takes_place = generator.random() < entries.rand_augment_probability
        magnitude = generator.normal(entries.rand_augment_magnitude, entries.rand_augment_std)
        share = min(max(float(magnitude), 0.0), HIGHEST) / HIGHEST
        sign = 1.0 if generator.random() < 0.5 else -1.0
        if takes_place:
            found.append(list(OPERATIONS.values())[place](share, sign))
    return found


def _enhance(what: str) -> Callable[[float, float], Operation]:
    def make(share: float, sign: float) -> Operation:
        factor = max(LEAST_FACTOR, 1 + sign * share * ENHANCEMENT)
        return Operation(lambda picture: enhanced(picture, what, factor))

    return make


def _posterize(share: float, sign: float) -> Operation:
    bits = POSTERIZED_BITS - int(share * POSTERIZED_BITS)
    return Operation(lambda picture: ImageOps.posterize(picture, bits) if bits else picture.point(lambda value: 0))


def _add(share: float, sign: float) -> Operation:
    added = int(share * ADDED)
    return Operation(lambda picture: picture.point(lambda value: value + added * (value < ADDED_BELOW)))


def _rotate(share: float, sign: float) -> Operation:
    angle = math.radians(sign * share * DEGREES)
    cos, sin = math.cos(angle), math.sin(angle)

    def places(width: int, height: int) -> tuple[float, float, float, float, float, float]:
        x, y = width / 2, height / 2  # the middle stays
        return (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)

    return Operation(places=places)


def _shear_x(share: float, sign: float) -> Operation:
    return Operation(places=lambda width, height: (1, sign * share * SHEAR, 0, 0, 1, 0))


def _shear_y(share: float, sign: float) -> Operation:
    return Operation(places=lambda width, height: (1, 0, 0, sign * share * SHEAR, 1, 0))


def _shift_x(share: float, sign: float) -> Operation:
    return Operation(places=lambda width, height: (1, 0, sign * share * SHIFT * width, 0, 1, 0))


def _shift_y(share: float, sign: float) -> Operation:
    return Operation(places=lambda width, height: (1, 0, 0, 0, 1, sign * share * SHIFT * height))


# Name -> what makes it of a magnitude, 0 to 1, and a sign.
OPERATIONS: dict[str, Callable[[float, float], Operation]] = {
    "auto_contrast": lambda share, sign: Operation(ImageOps.autocontrast),
    "equalize": lambda share, sign: Operation(ImageOps.equalize),
    "invert": lambda share, sign: Operation(ImageChops.invert),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": lambda share, sign: Operation(lambda picture: solarized(picture, 256 - int(share * 256))),
    "solarize_add": _add,
    "color": _enhance("saturation"),
    "contrast": _enhance("contrast"),
    "brightness": _enhance("brightness"),
    "sharpness": _enhance("sharpness"),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _shift_x,
    "translate_y": _shift_y,
}


def moved(picture: Image.Image, places: Affine, fill: float | tuple[int, int, int], smooth: bool) -> Image.Image:
    """A picture whose pixels show what was elsewhere, and `fill` where nothing was; interpolated if `smooth`."""
    resample = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    matrix = places(*picture.size)
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)
