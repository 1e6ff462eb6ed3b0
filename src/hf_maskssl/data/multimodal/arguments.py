"""The fields of a recipe's `data` section for rows of several pictures."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...checks import ABOVE_0, AT_LEAST_1, FINITE, SHARE, Range
from ..arguments import DENSE_TASKS, DataArguments
from ..augmentation.arguments import Augmentation, parse_augmentation


@dataclass
class MultimodalArguments(DataArguments):
    """Arguments of several aligned pictures of one scene, such as colours, depth and classes.

    `input_column` is `{modality: column}`, which may leave some of the model's modalities out. One name alone is the column
    of rgb, and None means columns named like the modalities. `label_column` of a dense task is the column of the map.
    `cache` is false unless the recipe says otherwise: pictures take far less room than their prepared form.

    Attributes:
        label_names: Names of the classes of `"semantic_segmentation"`, by their id in the label maps, or, where ids are larger
            than the number of names and there are as many ids as names, in the order of the ids. None means those of the scenes,
            or the ids that occur in the training split. The model's `semantic_loss_ignore_index` is no class, unless it and
            one other id are all that occurs, as in masks of 0 and 255.
        label_scale: Factor that turns the label maps of `"depth_estimation"` into depth, such as 0.001 for 16-bit millimetres, or
            those of `"dense_regression"` into values, such as 1/255 for bytes. None means 0.001 for the depth of the scenes and 1
            for all other sources.
        label_invalid_value: Raw value of pixels whose depth or values are not known, in all channels. Values that are no number
            are never known, nor are depths that are not above 0.
        label_channels: Number of the first channels of the label maps of `"dense_regression"` that are learnt, such as 2 for a
            principal curvature in a coloured picture. None means all that the training split's first map has.
        label_clip: Lowest and highest value of `"dense_regression"`, to which values are clipped once they are scaled.
        label_flips_x: Whether mirroring turns the first channel of a map of `"dense_regression"` round, as in normals: bytes x
            become 255 - x, all other numbers -x.
        modality_options: Table of modality -> processing of its pictures, the fields `scale`, `standardize`, `mean`, `std`,
            `resample`, `flips_x` and `invalid_value` of `MultiMAEImageProcessor`; `standardize: dataset` without `mean` measures
            both on the training split, and is the default of every modality but rgb, depth and normals, which have their own. In
            depth, 0 is a hole (`invalid_value: 0`). These options replace those of a checkpoint's processor.
        augment: Whether to crop and mirror training rows at random, all modalities and label maps of a row alike, anew in every
            epoch; `cache` then has no meaning for them. The draws depend on `split_seed`, the run's seed, the epoch and the
            row alone, so a resumed run draws the same.
        crop_scale: Share of the picture's area that a random crop has, lowest and highest.
        crop_ratio: Width of a random crop over its height, lowest and highest, where 1 is the ratio of the model's `image_size`.
        flip_probability: Probability that a row is mirrored.
        augmentation: What else changes training rows with `augment`: entries such as {rand_augment_magnitude: 9,
            erasing_probability: 0.25} or {large_scale_jitter: [0.1, 2.0], color_jitter: [0.4, 0.4, 0.2, 0.1]}, all of which
            docs/finetuning.md lists. Colours of rgb alone change; where RandAugment moves them, all pictures and label maps of a
            row move alike.
        crop_fraction: Number in (0, 1] that scales the sides of the box to take out of the middle where rows are not augmented;
            at 1 it is the largest box of the model's aspect ratio. None resizes the whole picture, whatever its aspect ratio.
        allow_missing: Whether rows may lack a modality (a null, a file that is not there), which the model then neither sees nor
            predicts. Otherwise they are an error.
        verify_images: Whether to open every picture once before anything else; `num_proc` processes share the work. Rows with
            unreadable ones are left out with a warning that names them; more than 1 % of the rows stop the run.
    """

    kind: str = "multimodal"
    label_names: list[str] | None = None
    label_scale: float | None = None
    label_invalid_value: float | None = None
    label_channels: int | None = None
    label_clip: list[float] | None = None
    label_flips_x: bool = False
    modality_options: dict[str, dict[str, Any]] | None = None
    augment: bool = False
    crop_scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    flip_probability: float = 0.5
    augmentation: dict[str, Any] | None = None
    crop_fraction: float | None = None
    allow_missing: bool = False
    verify_images: bool = True

    TASKS: ClassVar[tuple[str, ...]] = (*DataArguments.TASKS, *DENSE_TASKS)
    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, dict, type(None))
    CACHES: ClassVar[bool] = False
    RANGES: ClassVar[dict[str, Range]] = {
        **DataArguments.RANGES,
        **dict.fromkeys(("crop_scale", "crop_fraction"), Range(0, 1, excludes_low=True)),
        **dict.fromkeys(("crop_ratio", "label_scale"), ABOVE_0),
        "flip_probability": SHARE,
        **dict.fromkeys(("label_invalid_value", "label_clip"), FINITE),
        "label_channels": AT_LEAST_1,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        entries = self.augmentation_entries
        if entries.rand_augment_magnitude is not None and self.label_flips_x:
            raise ValueError(
                "data.augmentation.rand_augment_magnitude turns pictures, but not the directions in them that data.label_flips_x "
                "speaks of: leave RandAugment out"
            )
        if self.builtin is not None and self.label_scale is None and self.task == "depth_estimation":
            self.label_scale = self.builtin.depth_scale
        values = ("depth_estimation", "dense_regression")
        for name, value, tasks in (
            ("label_names", self.label_names, ("semantic_segmentation",)),
            ("label_scale", self.label_scale, values),
            ("label_invalid_value", self.label_invalid_value, values),
            ("label_channels", self.label_channels, values[1:]),
            ("label_clip", self.label_clip, values[1:]),
            ("label_flips_x", self.label_flips_x or None, values[1:]),
        ):
            if value is not None and self.task not in tasks:
                wanted = " or ".join(map(repr, tasks))
                raise ValueError(f"data.{name} is for task {wanted}; task is {self.task!r}: remove it")
        if self.label_clip is not None and (len(self.label_clip) != 2 or self.label_clip[0] >= self.label_clip[1]):
            raise ValueError(
                f"data.label_clip: expected the lowest and the highest value, such as [0, 1], got {self.label_clip}"
            )

    @property
    def augmentation_entries(self) -> Augmentation:
        """`augmentation`, complete.

        Raises:
            ValueError: See `parse_augmentation`.
        """
        return parse_augmentation(self.augmentation, self.augment, jitters_scale=True)

    @property
    def may_lack_columns(self) -> bool:
        return self.allow_missing

    @property
    def label_maps(self) -> list[str]:
        """Names of the label columns whose values are maps as large as the picture."""
        return self.target_columns() if self.task in DENSE_TASKS else []

    @property
    def file_columns(self) -> list[str]:
        return [*self.input_columns(), *self.label_maps]
