"""Image processor for several aligned images of one scene: colours, depth, class maps and any other map."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import DepthEstimatorOutput, SemanticSegmenterOutput
from transformers.utils import TensorType

from .field_checks import SizesAsPairs
from .image_processing_array import BIT_DEPTHS, RESAMPLING, Pictures
from .image_processing_pictures import (
    Changes,
    Raw,
    View,
    as_batch,
    channels_of,
    check_class_ids,
    check_view,
    common_size,
    height_and_width,
    jittered_view,
    nearest_pixels,
    placed,
    random_view,
    read_picture,
    resize_each,
    resized,
    scaled_box,
)
from .standardization import check_statistics

# Defaults of pictures with these names: ImageNet's mean and standard deviation; the robust
# standardisation of the paper's depth, where sensors write 0 for what they did not see; and normals coded as bytes, whose
# first component points along the picture's rows.
NAMED_DEFAULTS: dict[str, dict[str, Any]] = {
    "rgb": {"scale": 1 / 255, "standardize": "dataset", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "depth": {"standardize": "robust", "invalid_value": 0},
    "normals": {"scale": 1 / 255, "standardize": "dataset", "mean": [0.5] * 3, "std": [0.5] * 3, "flips_x": True},
}
OPTIONS = ("scale", "standardize", "mean", "std", "resample", "flips_x", "invalid_value", "bit_depth")
SHAPE_FIELDS = ("kind", "num_channels", "num_classes", "stride")
# Fields of the model's description of a modality that say nothing about its pictures.
MODEL_FIELDS = ("embedding_size", "patch_size", "loss", "is_input", "is_output")
STANDARDIZE_MODES = ("none", "dataset", "robust")
# The authors' robust standardisation: a tenth of the pixels is cut at either end; added to the variance of the rest.
TRIMMED_SHARE = 0.1
VARIANCE_EPSILON = 1e-6
COLOURS = "rgb"  # the modality whose colours may be changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One entry of `MultiMAEImageProcessor.modalities`, complete and checked.

    Attributes:
        name: Key of the entry.
        channels: Number of channels of a continuous modality, None for class maps.
        num_classes: Number of classes of class maps, otherwise 0.
        stride: Factor by which the result is coarser than the image.
        scale: Raw values are multiplied by this first.
        standardize: `"none"`, `"dataset"` (by `mean` and `std`) or `"robust"` (by the sample's own, trimmed).
        mean: One number per channel, in scaled values.
        std: One number per channel, in scaled values.
        resample: Name of the interpolation, a key of `RESAMPLING`.
        flips_x: Whether mirroring reverses channel 0, as in normals: bytes about the middle of 0 to 255, all other
            numbers about 0.
        invalid_value: Pixels of this value are left out of statistics and are missing; `"nan"` are those that are not
            finite; None means that all are valid.
        bit_depth: Bits that pictures of one channel have, 8, 16 or 32 (modes I and F); None takes any. Arrays have none.
    """

    name: str
    channels: int | None
    num_classes: int
    stride: int
    scale: float
    standardize: str
    mean: list[float] | None
    std: list[float] | None
    resample: str
    flips_x: bool
    invalid_value: float | str | None
    bit_depth: int | None


# Channels of maps to learn, as `read_picture` takes them; those of values have any number.
LABELS: dict[str, int | None] = {"classes": None, "depth": 1}


class ModalityFeature(BatchFeature):
    """A `BatchFeature` of `inputs`, a dict of tensors, whose `to` moves these too."""

    def to(self, *args: object, **kwargs: object) -> "ModalityFeature":
        """Move all tensors to a device and floating ones to a type, as `BatchFeature.to` does."""
        self.data["inputs"] = dict(BatchFeature(self.data["inputs"]).to(*args, **kwargs))
        return self


class MultiMAEImageProcessor(SizesAsPairs, BaseImageProcessor):
    """Crops, flips, resizes and standardises aligned pictures together.

    Args:
        modalities: Name -> fields. `kind` "continuous" needs `num_channels`, "categorical" `num_classes`; `stride` 1 says
            how much coarser than the image the result is. Continuous ones may have `scale` 1, `standardize` "none",
            "dataset" (by `mean` and `std`, in scaled values) or "robust" (Bachmann et al. 2022: minus the mean, divided by
            the standard deviation, of the sample's pixels without the lowest and highest tenth), `resample` "bilinear",
            `flips_x` false (mirroring turns channel 0 round: bytes x become 255 - x, all other numbers -x),
            `invalid_value` (a number or "nan": such pixels are left out of statistics and are missing) and `bit_depth` (8, 16
            or 32: PIL images of one channel and another depth are refused). rgb, depth (0 is invalid) and normals have
            defaults, `NAMED_DEFAULTS`.
            Fields that concern the model alone are dropped, and so are entries with `target_of`. None: rgb alone.
        image_size: [H, W] of the results of stride 1, or one number for a square.
        ignore_index: Class id of pixels without a class.
        crop_fraction: Size of the middle box that is cut out, as a share in (0, 1] of the largest one with the result's aspect
            ratio; None resizes the whole picture without keeping its aspect ratio.
        crop_scale: Share of the picture's area that a random crop has, lowest and highest.
        crop_ratio: Width of such a crop over its height, where 1 is the ratio of `image_size`.
        flip_probability: Share of random views that are mirrored.
        large_scale_jitter: Size of the picture in random views, lowest and highest, as a factor of the largest that fits into the
            result whole; in place of crops by `crop_scale`. Padding is invalid, and has no class.

    Raises:
        ValueError: A field that is missing, unknown or cannot be, naming the modality.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        image_size: int | Sequence[int] = 224,
        ignore_index: int = 255,
        crop_fraction: float | None = None,
        crop_scale: Sequence[float] = (0.2, 1.0),
        crop_ratio: Sequence[float] = (0.75, 4 / 3),
        flip_probability: float = 0.5,
        large_scale_jitter: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        entries = {"rgb": {"kind": "continuous", "num_channels": 3}} if modalities is None else modalities
        self.modalities = {
            name: _kept_fields(name, fields) for name, fields in entries.items() if fields.get("target_of") is None
        }
        size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(size) != 2 or min(size) < 1 or not self.modalities:
            raise ValueError(f"expected image_size [H, W] and at least one modality, got {size}, {list(entries)}")
        self.image_size = size
        self.ignore_index = ignore_index
        self.crop_fraction = crop_fraction
        self.crop_scale, self.crop_ratio = (
            _check_range("crop_scale", crop_scale),
            _check_range("crop_ratio", crop_ratio),
        )
        self.flip_probability = flip_probability
        self.large_scale_jitter = (
            None if large_scale_jitter is None else _check_range("large_scale_jitter", large_scale_jitter)
        )
        if max(self.crop_scale) > 1 or not 0 < (1 if crop_fraction is None else crop_fraction) <= 1:
            raise ValueError(
                f"crop_scale and crop_fraction are shares in (0, 1], got {self.crop_scale} and {crop_fraction}"
            )
        if not 0 <= flip_probability <= 1:
            raise ValueError(f"flip_probability: expected a number in [0, 1], got {flip_probability}")
        for picture in self.pictures().values():
            if size[0] % picture.stride or size[1] % picture.stride:
                raise ValueError(
                    f"modality '{picture.name}': image_size {size} must be a multiple of its stride {picture.stride}"
                )

    def pictures(self) -> dict[str, Picture]:
        """Every modality, complete."""
        return {name: _complete(name, _frozen(fields)) for name, fields in self.modalities.items()}

    def preprocess(
        self,
        images: Pictures | Mapping[str, Pictures],
        views: Sequence[View] | None = None,
        augment: bool = False,
        generator: np.random.Generator | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Prepare a sample or a batch; calling the processor does this.

        Args:
            images: `{modality: pictures}`: of each modality one picture or a sequence of them, equally many; PIL images
                (16-bit too) or arrays of (H, W), (C, H, W) or (H, W, C). A sequence may be one array, (B, C, H, W) or
                (B, H, W, C), and (B, H, W) of maps of one channel. Or, alone, rgb pictures.
            views: Part of each sample to show; None is the whole or the middle, by `crop_fraction`.
            augment: Whether to draw a random crop and flip of each sample instead.
            generator: Generator of these draws; None takes a fresh one.
            return_tensors: `"pt"` or `"np"` for one array per modality, None for lists.

        Returns:
            `inputs`, {modality: (B, C, H / stride, W / stride) float32, or (B, H / stride, W / stride) int64 class ids}; for
            rgb alone `pixel_values` (B, 3, H, W). Where pixels are invalid, also `observed_mask`, {modality: bool of the same
            shape, True = valid}.

        Raises:
            ValueError: Pictures that do not fit, naming modality and row.
        """
        is_plain = not isinstance(images, Mapping)
        channels = {name: picture.channels for name, picture in self.pictures().items()}
        named: Mapping[str, Pictures] = images if isinstance(images, Mapping) else {"rgb": images}
        batches = {name: as_batch(values, channels.get(name, 0)) for name, values in named.items()}
        counts = {name: len(values) for name, values in batches.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(f"images: expected equally many pictures of each modality, at least one, got {counts}")
        (count,) = set(counts.values())
        if views is not None and len(views) != count:
            raise ValueError(f"views: expected one per sample, {count}, got {len(views)}")
        generator = np.random.default_rng() if augment and generator is None else generator
        rows = []
        for row in range(count):
            sample = {name: values[row] for name, values in batches.items()}
            try:
                view = None if views is None else views[row]
                rows.append(self.prepare_row(sample, view, generator if augment else None, invalid=np.nan)[0])
            except ValueError as error:
                raise ValueError(f"row {row}: {error}") from error
        inputs = {name: [row[name] for row in rows] for name in batches}
        if is_plain:
            inputs, _ = without_holes(inputs)
            return BatchFeature({"pixel_values": inputs["rgb"]}, tensor_type=return_tensors)
        parts = zip(("inputs", "observed_mask"), without_holes(inputs), strict=True)
        stacked = {key: dict(BatchFeature(part, tensor_type=return_tensors)) for key, part in parts if part}
        return ModalityFeature(stacked)

    def prepare_row(
        self,
        sample: Mapping[str, Pictures],
        view: View | None = None,
        generator: np.random.Generator | None = None,
        labels: Mapping[str, Pictures] | None = None,
        invalid: float = 0.0,
        changes: Changes | None = None,
        label_invalid: float | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """One sample, with the same view of all its pictures.

        Args:
            sample: Modality -> picture.
            view: Part to show, in pixels of a picture of stride 1. None draws it, or else takes the whole or the middle.
            generator: Generator of the view where none is given.
            labels: `"classes"`, `"depth"`, `"values"`, or `"normals"` (values whose channel 0 mirroring turns round) -> map to
                learn, which is cut and mirrored in the same way.
            invalid: Value of invalid pixels in the result, 0 or NaN.
            changes: Changes of the row's pictures: of the colours of rgb, and of the places of all.
            label_invalid: Raw value of the pixels of a map of numbers that are not known: 0 in depth, NaN in others. None
                where there is none.

        Returns:
            Modality -> (C, h, w) float32 or (h, w) int64; and label -> (H, W) int64 classes or float32 depth, or (C, H, W)
            float32 values.

        Of class maps only the ids that the result is made of are converted and checked: an id out of range is refused if
        and only if it is used. Numbers that are not finite are refused wherever they lie in the picture.

        Raises:
            ValueError: An unknown modality, another number of channels, sizes that differ, class ids out of range, or values
                that are not finite, naming the modality.
        """
        pictures = self.pictures()
        for name in sample:
            if name not in pictures:
                raise ValueError(f"modality '{name}' is unknown: expected one of {list(pictures)}")
        raw = {name: _read(f"modality '{name}'", value, pictures[name]) for name, value in sample.items()}
        raw_labels = {
            name: _read("the labels", value, LABELS[name] if name in LABELS else channels_of(value))
            for name, value in (labels or {}).items()
        }
        strides = {name: pictures[name].stride for name in raw} | dict.fromkeys(raw_labels, 1)
        size = common_size({**raw, **raw_labels}, strides)
        if view is None:
            view = self.fixed_view(size) if generator is None else self.random_view(size, generator)
        check_view(view, size)
        prepared = {
            name: self._prepare(pictures[name], values, view, size, invalid, changes) for name, values in raw.items()
        }
        targets = {
            name: self._prepare_label(name, values, view, size, changes, label_invalid)
            for name, values in raw_labels.items()
        }
        return prepared, targets

    def fixed_view(self, size: tuple[int, int]) -> View:
        """The view without chance of a picture of (height, width)."""
        height, width = size
        if self.crop_fraction is None:
            return View(0, 0, height, width)
        unit = self.crop_fraction * min(height / self.image_size[0], width / self.image_size[1])
        box = [max(1, min(full, round(unit * side))) for full, side in zip(size, self.image_size, strict=True)]
        return View((height - box[0]) // 2, (width - box[1]) // 2, box[0], box[1])

    def random_view(self, size: tuple[int, int], generator: np.random.Generator) -> View:
        """A random crop and flip (`random_view`), or a large-scale jitter where the processor has one (`jittered_view`)."""
        if self.large_scale_jitter is not None:
            return jittered_view(size, self.image_size, self.large_scale_jitter, self.flip_probability, generator)
        return random_view(size, self.image_size, self.crop_scale, self.crop_ratio, self.flip_probability, generator)

    def scaled_values(self, name: str, value: Pictures) -> np.ndarray:
        """A picture of a continuous modality resized and scaled, (C, N) float64: only its valid pixels, whose mean and
        standard deviation `"dataset"` takes.

        Raises:
            ValueError: The picture is one that `prepare_row` refuses.
        """
        picture = self.pictures()[name]
        raw = _read(f"modality '{name}'", value, picture)
        height, width = height_and_width(raw)
        size = (height * picture.stride, width * picture.stride)
        values, is_valid = scaled_pixels(picture, raw, self._target(picture.stride), self.fixed_view(size), size)
        return values[:, is_valid].astype(np.float64)

    def post_process_semantic_segmentation(
        self, outputs: SemanticSegmenterOutput, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[torch.Tensor]:
        """Class maps of a segmentation model's `logits`.

        Args:
            outputs: Output of a model with `logits` (B, L, h, w).
            target_sizes: (height, width) of each map; None leaves the logits' size.

        Returns:
            B maps (height, width), int64.

        Raises:
            ValueError: Another number of sizes than samples.
        """
        assert outputs.logits is not None  # every head gives them
        resized = resize_each(outputs.logits, target_sizes, "bilinear")
        return [logits.argmax(dim=0) for logits in resized]

    def post_process_depth_estimation(
        self, outputs: DepthEstimatorOutput, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Depth maps of a depth model's `predicted_depth` (B, H, W), as transformers' depth processors give them.

        Args:
            outputs: Output of a model with `predicted_depth` (B, H, W).
            target_sizes: (height, width) of each map; None leaves their size.

        Returns:
            B dicts with the entry `predicted_depth`, (height, width).

        Raises:
            ValueError: Another number of sizes than samples.
        """
        assert outputs.predicted_depth is not None  # every head gives it
        resized = resize_each(outputs.predicted_depth[:, None], target_sizes, "bicubic")
        return [{"predicted_depth": depth[0]} for depth in resized]

    def _prepare(
        self, picture: Picture, raw: Raw, view: View, size: tuple[int, int], invalid: float, changes: Changes | None
    ) -> np.ndarray:
        def make(part: View, target: tuple[int, int]) -> np.ndarray:
            if picture.channels is None:
                where = f"modality '{picture.name}'"
                ids = class_ids(where, raw, target, part, size, self.ignore_index, picture.num_classes)
                return ids if changes is None else changes.classes(ids, self.ignore_index)
            return _continuous_values(picture, raw, part, size, target, invalid, changes)

        fill = self.ignore_index if picture.channels is None else invalid
        values = placed(view, size, self._target(picture.stride), make, fill)
        return changes.erase(values) if changes is not None and picture.name == COLOURS else values

    def _prepare_label(
        self,
        name: str,
        raw: Raw,
        view: View,
        size: tuple[int, int],
        changes: Changes | None,
        label_invalid: float | None,
    ) -> np.ndarray:
        def classes(part: View, target: tuple[int, int]) -> np.ndarray:
            ids = class_ids("the labels", raw, target, part, size, self.ignore_index)
            return ids if changes is None else changes.classes(ids, self.ignore_index)

        def numbers(part: View, target: tuple[int, int]) -> np.ndarray:
            # Labels are not interpolated: between two objects that would invent depths.
            pixels = nearest_pixels(raw, target, part, size)[0]
            values = pixels.astype(np.float32)
            values = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0).copy()
            if label_invalid is not None:  # before anything changes the values
                values[:, (values == np.float32(label_invalid)).all(axis=0)] = np.nan
            if name == "normals" and part.is_flipped:
                values[0] = (np.float32(255.0) if pixels.dtype == np.uint8 else np.float32(0.0)) - values[0]
            return values if changes is None else changes.values(values)

        if name == "classes":
            return placed(view, size, self._target(1), classes, self.ignore_index)
        values = placed(view, size, self._target(1), numbers, np.nan)
        return np.where(np.isfinite(values[0]), values[0], np.float32(0.0)) if name == "depth" else values

    def _target(self, stride: int) -> tuple[int, int]:
        """(h, w) of a result."""
        return (self.image_size[0] // stride, self.image_size[1] // stride)


def _continuous_values(
    picture: Picture,
    raw: Raw,
    view: View,
    size: tuple[int, int],
    target: tuple[int, int],
    invalid: float,
    changes: Changes | None,
) -> np.ndarray:
    """(C, h, w) float32, scaled and standardised, of a view inside a continuous picture."""
    values, is_valid = scaled_pixels(picture, raw, target, view, size)
    if changes is not None and changes.changes_colours and picture.name == COLOURS:
        values = _recoloured(picture, raw, values, changes)
    if picture.standardize == "robust":
        values = robustly_standardized(values, is_valid)
    elif picture.standardize == "dataset":
        if picture.mean is None or picture.std is None:
            raise ValueError(f"modality '{picture.name}': standardize 'dataset' needs its `mean` and `std`")
        mean, std = (np.array(numbers, dtype=np.float32) for numbers in (picture.mean, picture.std))
        values -= mean[:, None, None]
        values /= std[:, None, None]
    if changes is not None and picture.name != COLOURS:
        values[:, ~is_valid] = np.nan
        values = changes.values(values)
        is_valid = np.isfinite(values).all(axis=0)
    if not is_valid.all():
        values = np.where(is_valid, values, np.float32(invalid))
    return values


def _kept_fields(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a modality that concern its pictures, with its defaults."""
    unknown = sorted(set(fields) - {*SHAPE_FIELDS, *OPTIONS, *MODEL_FIELDS, "target_of"})
    if unknown:
        raise ValueError(f"modality '{name}' has the unknown fields {unknown}; known are {[*SHAPE_FIELDS, *OPTIONS]}")
    defaults = NAMED_DEFAULTS.get(name, {})
    own = {field: value for field, value in fields.items() if field in SHAPE_FIELDS or field in OPTIONS}
    if fields.get("kind") != "continuous" or fields.get("num_channels") != len(defaults.get("mean", [0.0])):
        defaults = {}
    if "standardize" in own and own["standardize"] != defaults.get("standardize"):
        # Another standardisation has no use for the default's numbers.
        defaults = {field: value for field, value in defaults.items() if field not in ("mean", "std")}
    return {**defaults, **own}


def _frozen(fields: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Fields in a hashable form, for a cache."""
    return tuple((field, tuple(value) if isinstance(value, list) else value) for field, value in fields.items())


@functools.lru_cache(maxsize=256)
def _complete(name: str, frozen_fields: tuple[tuple[str, Any], ...]) -> Picture:
    fields = dict(frozen_fields)
    where = f"modality '{name}'"
    kind = fields.get("kind")
    counts = {"continuous": "num_channels", "categorical": "num_classes"}
    if kind not in counts:
        raise ValueError(f"{where}: expected `kind` 'continuous' or 'categorical', got {kind!r}")
    count = _positive(where, counts[kind], fields.get(counts[kind]))
    stride = _positive(where, "stride", fields.get("stride", 1))
    is_categorical = kind == "categorical"
    if is_categorical and set(fields) & set(OPTIONS):
        raise ValueError(f"{where}: class maps have none of the fields {sorted(set(fields) & set(OPTIONS))}")
    mode, resample = fields.get("standardize", "none"), fields.get("resample", "bilinear")
    for field, value, known in (("standardize", mode, STANDARDIZE_MODES), ("resample", resample, tuple(RESAMPLING))):
        if value not in known:
            raise ValueError(f"{where}: `{field}` must be one of {list(known)}, got {value!r}")
    scale, invalid = float(fields.get("scale", 1.0)), fields.get("invalid_value")
    if scale == 0.0 or not math.isfinite(scale):
        raise ValueError(f"{where}: expected a finite `scale` other than 0, got {scale}")
    if isinstance(invalid, str) and invalid != "nan":
        raise ValueError(f"{where}: expected a number, 'nan' or nothing as `invalid_value`, got {invalid!r}")
    if fields.get("bit_depth") not in (None, *BIT_DEPTHS):
        raise ValueError(f"{where}: expected one of {list(BIT_DEPTHS)} as `bit_depth`, got {fields['bit_depth']!r}")
    try:
        mean, std = check_statistics("dataset", fields.get("mean"), fields.get("std"), 1 if is_categorical else count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Picture(
        name=name,
        channels=None if is_categorical else count,
        num_classes=count if is_categorical else 0,
        stride=stride,
        scale=scale,
        standardize=mode,
        mean=mean,
        std=std,
        resample=resample,
        flips_x=bool(fields.get("flips_x", False)),
        invalid_value=invalid,
        bit_depth=fields.get("bit_depth"),
    )


def _positive(where: str, field: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{where}: expected a positive integer `{field}`, got {value!r}")
    return value


def _recoloured(picture: Picture, raw: Raw, values: np.ndarray, changes: Changes) -> np.ndarray:
    """Scaled values (3, h, w) of a picture of bytes, changed as bytes.

    Raises:
        ValueError: The picture is not of bytes in three channels.
    """
    kind = "bytes" if isinstance(raw, Image.Image) or raw.dtype == np.uint8 else str(raw.dtype)
    if picture.channels != 3 or kind != "bytes":
        raise ValueError(
            f"modality '{picture.name}': colours are changed in pictures of bytes in 3 channels, got {picture.channels} of "
            f"{kind}: give bytes, or leave data.augmentation out"
        )
    # The values are whole numbers times the scale, but where an interpolation of arrays has left others.
    pixels = np.clip(np.rint(values / np.float32(picture.scale)), 0, 255).astype(np.uint8)
    changed = np.asarray(changes.colours(Image.fromarray(np.moveaxis(pixels, 0, -1))), dtype=np.float32)
    return np.ascontiguousarray(np.moveaxis(changed, -1, 0)) * np.float32(picture.scale)


def _read(where: str, value: Pictures, expected: Picture | int | None) -> Raw:
    channels, bits = (expected.channels, expected.bit_depth) if isinstance(expected, Picture) else (expected, None)
    try:
        return read_picture(value, channels, bits)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_range(name: str, bounds: Sequence[float]) -> list[float]:
    values = [float(bound) for bound in bounds]
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ValueError(f"{name}: expected two positive numbers, the lower first, got {values}")
    return values


def without_holes(
    inputs: Mapping[str, Sequence[np.ndarray]],
) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Modality -> prepared pictures with 0 in place of NaN; and of those that have NaN in any, modality -> what was observed."""
    filled: dict[str, list[np.ndarray]] = {}
    observed: dict[str, list[np.ndarray]] = {}
    for name, pictures in inputs.items():
        filled[name] = list(pictures)
        if pictures[0].dtype.kind == "f" and any(np.isnan(picture.sum()) for picture in pictures):
            observed[name] = [~np.isnan(picture) for picture in pictures]
            filled[name] = [np.nan_to_num(picture) for picture in pictures]
    return filled, observed


def class_ids(
    where: str,
    raw: Raw,
    target: tuple[int, int],
    view: View,
    size: tuple[int, int],
    ignore_index: int,
    num_classes: int | None = None,
) -> np.ndarray:
    """(h, w) int64 class ids; only those ids of the map that the result uses are converted and checked."""
    ids, rows, columns = nearest_pixels(raw, target, view, size)
    try:
        check_class_ids(ids)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if num_classes is not None:
        # The check comes before the conversion, which makes eight bytes of one.
        is_outside = (ids >= num_classes) | (ids < 0) if ids.dtype.kind in "if" else ids >= num_classes
        if is_outside.any() and (is_outside := is_outside & (ids != ignore_index)).any():
            row, column = np.argwhere(is_outside)[0]
            raise ValueError(
                f"{where}: pixel row {rows[row]}, column {columns[column]} has the class {int(ids[row, column])}, "
                f"expected 0..{num_classes - 1} (num_classes) or {ignore_index} for none (ignore_index)"
            )
    return ids.astype(np.int64)


def scaled_pixels(
    picture: Picture, raw: Raw, target: tuple[int, int], view: View, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(C, h, w) float32 scaled values, an array of their own, and (h, w) bool, True = valid pixel."""
    own = height_and_width(raw)
    box = scaled_box(view, size, own)
    is_bytes = isinstance(raw, Image.Image) or raw.dtype == np.uint8
    has_holes = isinstance(picture.invalid_value, float | int)
    shown = np.ones(target, dtype=bool)
    if is_bytes and not has_holes:
        values = resized(raw, target, box, picture.resample)
    else:
        raw = np.asarray(raw).reshape(*own, -1)
        if not is_bytes:
            _warn_of_scaled(picture, raw)
        is_valid = _valid_pixels(picture, raw)
        if is_valid.all():
            values = resized(raw, target, box, picture.resample)
        else:
            # Each result is the mean of the valid pixels among its own.
            share = resized(is_valid.astype(np.float32)[..., None], target, box, picture.resample)
            shown = share[0] > 0.5
            filled = np.where(is_valid[..., None], raw, 0).astype(np.float32)
            values = resized(filled, target, box, picture.resample)
            values /= np.where(shown, share, 1)
    if view.is_flipped:
        values, shown = np.ascontiguousarray(values[..., ::-1]), shown[..., ::-1]
    if picture.scale != 1.0:
        values *= np.float32(picture.scale)
    if view.is_flipped and picture.flips_x:
        values[0] = (np.float32(255 * picture.scale) if is_bytes else np.float32(0.0)) - values[0]
    return values, shown


def robustly_standardized(values: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
    """Minus the mean, divided by the standard deviation, of the valid pixels without the lowest and highest tenth.

    The authors' standardisation of depth: sorted, cut at `int(0.1 n)` and `int(0.9 n)`, unbiased variance plus 1e-6.

    Args:
        values: (C, h, w).
        is_valid: (h, w) bool.

    Returns:
        Array of the same shape, float32; where too few pixels are valid it is only centred.
    """
    exact = values.astype(np.float64)
    pixels = exact.ravel() if is_valid.all() else exact[:, is_valid].ravel()
    if pixels.size == 0:
        return np.zeros_like(values, dtype=np.float32)
    first, last = int(TRIMMED_SHARE * pixels.size), int((1 - TRIMMED_SHARE) * pixels.size)
    kept = np.partition(pixels, (first, max(first, last - 1)))[first : max(last, first + 1)]
    mean, variance = kept.mean(), kept.var(ddof=1) if kept.size > 1 else 0.0
    exact -= mean
    exact /= math.sqrt(variance + VARIANCE_EPSILON)
    return exact.astype(np.float32)


def _valid_pixels(picture: Picture, raw: np.ndarray) -> np.ndarray:
    """(H, W) bool.

    Raises:
        ValueError: Values that are not finite and not declared invalid.
    """
    # Values are compared as float32, in which they are computed; integers are finite.
    values = raw.astype(np.float32, copy=False)
    if raw.dtype.kind == "f":
        is_finite: np.ndarray = np.all(np.isfinite(values), axis=-1)
        if picture.invalid_value == "nan":
            return is_finite
        if not is_finite.all():
            row, column = np.argwhere(~is_finite)[0]
            raise ValueError(
                f"modality '{picture.name}': pixel row {row}, column {column} is {raw[row, column].tolist()}: fill or drop "
                "values that are not finite, or set its `invalid_value` to 'nan'"
            )
    if picture.invalid_value is None or picture.invalid_value == "nan":
        return np.ones(raw.shape[:2], dtype=bool)
    is_invalid: np.ndarray = (values == np.float32(picture.invalid_value)).all(axis=-1)
    return ~is_invalid


def _warn_of_scaled(picture: Picture, raw: np.ndarray) -> None:
    """Warn, once a modality, of numbers in 0..1 that are scaled as if they were bytes."""
    if math.isclose(picture.scale, 1 / 255, rel_tol=1e-3) and raw.min() >= 0 and 0 < raw.max() <= 1:
        _warn_once(
            f"modality '{picture.name}': pictures in 0..1 are multiplied by its `scale` {picture.scale:.5f}, which is for "
            "0..255: give bytes, or set its `scale` to 1"
        )


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)
