"""Pictures as callers give them, PIL images and arrays: reading them, the view of them, and resizing."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .image_processing_array import PILLOW_MODES, RESAMPLING, Pictures, bit_depth_of, converted, upright
from .standardization import Array

# A raw picture: a PIL image of bytes in the mode of its channels, or an array (H, W, C).
Raw: TypeAlias = Image.Image | np.ndarray
CROP_ATTEMPTS = 10
LARGEST_CLASS = 2**53  # above it float64, and above 2**63 int64, no longer hold every whole number


@dataclass(frozen=True)
class View:
    """The visible part of a picture, in pixels, and whether it is mirrored left to right.

    `is_padded` says that it may reach beyond the picture, where there is padding.
    """

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool = False
    is_padded: bool = False


class Changes(Protocol):
    """What happens to the pictures of one row once they are cut and resized, such as augmentation."""

    @property
    def changes_colours(self) -> bool:
        """Whether `colours` changes anything, for which it needs bytes."""

    def colours(self, picture: Image.Image) -> Image.Image:
        """A changed picture of mode RGB, of the same size."""

    def values(self, values: np.ndarray) -> np.ndarray:
        """Values (C, h, w) float32 moved as the colours are, NaN where nothing was."""

    def classes(self, ids: np.ndarray, ignore_index: int) -> np.ndarray:
        """Class ids (h, w) int64 moved as the colours are, `ignore_index` where nothing was."""

    def erase(self, values: np.ndarray) -> np.ndarray:
        """Standardised colours (C, h, w) with a part of them erased."""


def random_view(
    size: tuple[int, int],
    target: Sequence[int],
    crop_scale: Sequence[float],
    crop_ratio: Sequence[float],
    flip_probability: float,
    generator: np.random.Generator,
) -> View:
    """A random crop and flip, drawn as torchvision's `RandomResizedCrop` draws its.

    Args:
        size: Height and width of the picture.
        target: Height and width of the result.
        crop_scale: Share of the picture's area, lowest and highest.
        crop_ratio: Width over height, lowest and highest, where 1 is the ratio of `target`.
        flip_probability: Probability that the view is mirrored.
        generator: Generator of the draws.
    """
    height, width = size
    aspect = target[1] / target[0]
    is_flipped = bool(generator.random() < flip_probability)
    for _ in range(CROP_ATTEMPTS):
        area = height * width * generator.uniform(crop_scale[0], crop_scale[1])
        ratio = aspect * math.exp(generator.uniform(math.log(crop_ratio[0]), math.log(crop_ratio[1])))
        box = (round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))
        if 0 < box[0] <= height and 0 < box[1] <= width:
            top = int(generator.integers(height - box[0] + 1))
            left = int(generator.integers(width - box[1] + 1))
            return View(top, left, box[0], box[1], is_flipped)
    # The picture is too long for the ratios, so the view is its middle.
    unit = min(height / target[0], width / target[1])
    box = (max(1, round(unit * target[0])), max(1, round(unit * target[1])))
    return View((height - box[0]) // 2, (width - box[1]) // 2, box[0], box[1], is_flipped)


def jittered_view(
    size: tuple[int, int],
    target: Sequence[int],
    scale: Sequence[float],
    flip_probability: float,
    generator: np.random.Generator,
) -> View:
    """A view for large-scale jittering (Ghiasi et al. 2021), as MultiMAE's code has it.

    The picture is brought to a random size, as a factor of the largest that fits into the result whole. What is smaller than
    the result lies in its upper left corner, beside padding; of what is larger a random part is shown.

    Args:
        size: Height and width of the picture.
        target: Height and width of the result.
        scale: Factor, lowest and highest.
        flip_probability: Probability that the view is mirrored; then padding lies to the left.
        generator: Generator of the draws.
    """
    is_flipped = bool(generator.random() < flip_probability)
    factor = float(generator.uniform(scale[0], scale[1]))
    # Pixels of the picture for one of the result.
    unit = max(length / goal for length, goal in zip(size, target, strict=True)) / factor
    box = [max(1, round(unit * goal)) for goal in target]
    start = [int(generator.integers(max(length - part, 0) + 1)) for length, part in zip(size, box, strict=True)]
    return View(start[0], start[1], box[0], box[1], is_flipped, is_padded=True)


def placed(
    view: View,
    size: tuple[int, int],
    target: tuple[int, int],
    make: Callable[[View, tuple[int, int]], np.ndarray],
    fill: float,
) -> np.ndarray:
    """(..., h, w) of a view, whose part outside the picture is filled.

    Args:
        view: The view.
        size: Height and width of the picture.
        target: (h, w) of the result.
        make: Function that prepares a view inside the picture, for a result of (h, w).
        fill: Value of what is outside.
    """
    if not view.is_padded:
        return make(view, target)
    edges = []
    for start, length, full, goal in zip((view.top, view.left), (view.height, view.width), size, target, strict=True):
        last = min(full, start + length)
        end = min(goal, max(1, round((last - start) / length * goal)))
        edges.append((last - start, end))
    (height, rows), (width, columns) = edges
    inner = make(View(view.top, view.left, height, width, view.is_flipped), (rows, columns))
    result = np.full((*inner.shape[:-2], *target), fill, dtype=inner.dtype)
    first = target[1] - columns if view.is_flipped else 0
    result[..., :rows, first : first + columns] = inner
    return result


def read_picture(value: Pictures, channels: int | None, bit_depth: int | None = None) -> Raw:
    """A picture with a known number of channels, upright, whose values have not been checked or converted yet.

    Args:
        value: PIL image or array.
        channels: Number of channels C; None for a class map, whose C is 1.
        bit_depth: Bits that PIL images of one channel must have, whose numbers are measurements; None takes any.

    Returns:
        A PIL image of mode L, P, RGB or RGBA for a picture of bytes, else an array (H, W, C) of its own type.

    Raises:
        ValueError: Another number of channels or another depth, or no picture.
    """
    if not isinstance(value, Image.Image):
        return _array_pixels(value, 1 if channels is None else channels)
    if channels is not None and channels != 1:
        picture = converted(value, channels)
        return picture if isinstance(picture, Image.Image) else picture[..., None]
    return _map_pixels(value, channels, bit_depth)


def channels_of(value: Pictures) -> int:
    """Channels of a PIL image or an array (H, W), (C, H, W) or (H, W, C), whose channels are taken to be fewer than its pixels.

    Raises:
        ValueError: No picture.
    """
    if isinstance(value, Image.Image):
        return len(value.getbands())
    shape = np.asarray(value).shape
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"expected a picture of shape (H, W), (C, H, W) or (H, W, C), got {shape}")
    return 1 if len(shape) == 2 else int(min(shape[0], shape[-1]))


def _map_pixels(picture: Image.Image, channels: int | None, bit_depth: int | None) -> Raw:
    """A map of one channel, never made of colours: those would be no measurements."""
    bits = bit_depth_of(picture)
    # A palette's entries are the class ids; grey values of a palette would be none.
    if bits == 8 and picture.mode not in ("L", "1", *(["P"] if channels is None else [])):
        what = "a class map (mode L, P, I or I;16)" if channels is None else "1 channel (mode L, I, I;16 or F)"
        raise ValueError(f"expected {what}, got a picture in mode {picture.mode}")
    if channels is not None and bit_depth is not None and bits != bit_depth:
        raise ValueError(
            f"expected a picture of {bit_depth} bit, as those of training, got one of {bits} bit (mode {picture.mode}), whose "
            "numbers are of another range: bring all pictures to one depth"
        )
    picture = upright(picture)
    if picture.mode == "1" and channels is not None:
        picture = picture.convert("L")  # 0 and 255, as in a file of bytes; classes stay 0 and 1
    if picture.mode in ("L", "P"):
        return picture
    pixels = np.asarray(picture)[..., None]
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _array_pixels(value: Pictures, channels: int) -> np.ndarray:
    try:
        pixels = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a picture, an array of numbers: {error}") from error
    if pixels.dtype.kind not in "iufb":
        # The values of a damaged file of strings cannot be printed.
        came = f"an array of {pixels.dtype}" if isinstance(value, np.ndarray) else f"{str(value):.60}"
        raise ValueError(f"expected a picture, an array of numbers, got {came}")
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(f"expected a picture of shape (H, W), (C, H, W) or (H, W, C), got {shape}")
    if pixels.shape[-1] != channels or pixels.shape[0] == channels and channels > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[-1] != channels:
        raise ValueError(f"expected {channels} channels, got an array {shape}")
    return pixels


def common_size(raw: Mapping[str, Raw], strides: Mapping[str, int]) -> tuple[int, int]:
    """The size that all pictures of a sample have, or have after their stride.

    Raises:
        ValueError: They differ.
    """
    sizes = {name: height_and_width(values) for name, values in raw.items()}
    full = max(sizes.values())
    for name, (height, width) in sizes.items():
        if (height, width) != full and (height * strides[name], width * strides[name]) != full:
            raise ValueError(
                f"sizes differ between modalities: {sizes}; expected {full} everywhere, or that divided by the stride, "
                f"and '{name}' has stride {strides[name]}"
            )
    return (int(full[0]), int(full[1]))


def check_view(view: View, size: tuple[int, int]) -> None:
    height, width = size
    fits = 0 <= view.top <= view.top + view.height <= height and 0 <= view.left <= view.left + view.width <= width
    if view.is_padded:
        fits = 0 <= view.top < height and 0 <= view.left < width
    if not fits or view.height < 1 or view.width < 1:
        raise ValueError(f"{view} does not lie inside a picture of height {height} and width {width}")


def scaled_box(view: View, size: tuple[int, int], own: tuple[int, ...]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a view in the pixels of a picture of its own size."""
    rows, columns = own[0] / size[0], own[1] / size[1]
    return (view.left * columns, view.top * rows, (view.left + view.width) * columns, (view.top + view.height) * rows)


def resized(pixels: Raw, target: tuple[int, int], box: tuple[float, float, float, float], resample: str) -> np.ndarray:
    """The box (left, top, right, bottom) of a picture as (C, h, w) float32, a new array, interpolated by Pillow.

    Args:
        pixels: PIL image of bytes, or array (H, W, C).
        target: (h, w).
        box: Edges in pixels, which may lie between them.
        resample: Name of the interpolation, a key of `RESAMPLING`.
    """
    height, width = height_and_width(pixels)
    size, filter_ = (target[1], target[0]), RESAMPLING[resample]
    if target == (height, width) and box == (0, 0, width, height):
        return _channels_first(np.asarray(pixels))
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[-1] in PILLOW_MODES:
        pixels = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if isinstance(pixels, Image.Image):
        # The image is not cut first: Pillow skips what is outside of the box, but for the pixels that its filter reaches.
        return _channels_first(np.asarray(pixels.resize(size, filter_, box=box)))
    # Pillow's only other mode without bytes has one channel.
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel], dtype=np.float32)).resize(size, filter_, box=box)
        for channel in range(pixels.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes])


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W) float32, a new array."""
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    result = np.empty(planes.shape, dtype=np.float32)
    result[...] = planes
    return result


def height_and_width(raw: Raw) -> tuple[int, int]:
    return (raw.height, raw.width) if isinstance(raw, Image.Image) else (raw.shape[0], raw.shape[1])


def nearest_pixels(
    raw: Raw, target: tuple[int, int], view: View, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels of a map on which the centres of the result's pixels fall.

    Args:
        raw: The map, of one channel or several.
        target: (h, w) of the result.
        view: Part to show, in pixels of a picture of `size`.
        size: (height, width) of all pictures of the sample.

    Returns:
        (h, w), or (h, w, C) of several channels, of the map's own type, and the map's row (h,) and column (w,) of each.
    """
    own = height_and_width(raw)
    left, top, right, bottom = scaled_box(view, size, own)
    rows = np.floor(top + (np.arange(target[0]) + 0.5) * (bottom - top) / target[0]).astype(np.int64)
    columns = np.floor(left + (np.arange(target[1]) + 0.5) * (right - left) / target[1]).astype(np.int64)
    rows, columns = np.minimum(rows, own[0] - 1), np.minimum(columns, own[1] - 1)
    if view.is_flipped:
        columns = columns[::-1]
    pixels = np.asarray(raw)
    pixels = pixels if pixels.size > own[0] * own[1] else pixels.reshape(own)
    return pixels.take(rows, axis=0).take(columns, axis=1), rows, columns


def as_batch(images: Pictures, channels: int | None) -> Sequence[Pictures]:
    """A sequence of pictures from a value that may be one picture."""
    if isinstance(images, Image.Image | float | int):
        return [images]
    if isinstance(images, Array):
        # Three dimensions of a map are (B, H, W), unless one at either end is its channel.
        is_batch_of_maps = images.ndim == 3 and channels in (None, 1) and 1 not in (images.shape[0], images.shape[-1])
        return [*images] if images.ndim == 4 or is_batch_of_maps else [images]
    return images


def resize_each(
    maps: torch.Tensor, target_sizes: Sequence[tuple[int, int]] | None, mode: str
) -> Sequence[torch.Tensor]:
    """(B, C, h, w) -> B tensors (C, height, width)."""
    if target_sizes is None:
        return list(maps)
    if len(target_sizes) != len(maps):
        raise ValueError(
            f"target_sizes: expected one (height, width) per sample, {len(maps)}, got {len(target_sizes)}"
        )
    return [
        functional.interpolate(one[None], size=tuple(map(int, size)), mode=mode, align_corners=False)[0]
        for one, size in zip(maps, target_sizes, strict=True)
    ]


def check_class_ids(ids: np.ndarray) -> None:
    """Refuse values of a class map that are no classes: broken, not finite, or beyond what int64 holds exactly.

    Raises:
        ValueError: Saying so.
    """
    is_whole = ids.dtype.kind in "iub" or bool((np.isfinite(ids) & (ids == np.floor(ids))).all())
    if not is_whole or (ids.dtype.kind in "uf" and ids.size and np.abs(ids).max() > LARGEST_CLASS):
        raise ValueError("expected whole numbers as class ids, got others")
