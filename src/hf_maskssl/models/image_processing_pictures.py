"""Pictures as callers give them, PIL images and arrays: reading them, the view of them, and resizing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .image_processing_array import PILLOW_MODES, RESAMPLING, Pictures, bit_depth_of, converted, upright
from .standardization import Array

# A raw picture: a PIL image of bytes in the mode of its channels, or an array (H, W, C).
Raw: TypeAlias = Image.Image | np.ndarray
LARGEST_CLASS = 2**53  # above it float64, and above 2**63 int64, no longer hold every whole number


@dataclass(frozen=True)
class View:
    """The visible part of a picture, in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool = False


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
    """The pixels of a map of one channel on which the centres of the result's pixels fall.

    Args:
        raw: The map.
        target: (h, w) of the result.
        view: Part to show, in pixels of a picture of `size`.
        size: (height, width) of all pictures of the sample.

    Returns:
        (h, w) of the map's own type, and the map's row (h,) and column (w,) of each.
    """
    own = height_and_width(raw)
    left, top, right, bottom = scaled_box(view, size, own)
    rows = np.floor(top + (np.arange(target[0]) + 0.5) * (bottom - top) / target[0]).astype(np.int64)
    columns = np.floor(left + (np.arange(target[1]) + 0.5) * (right - left) / target[1]).astype(np.int64)
    rows, columns = np.minimum(rows, own[0] - 1), np.minimum(columns, own[1] - 1)
    if view.is_flipped:
        columns = columns[::-1]
    return np.asarray(raw).reshape(own).take(rows, axis=0).take(columns, axis=1), rows, columns


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
