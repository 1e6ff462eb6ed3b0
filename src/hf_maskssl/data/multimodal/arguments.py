"""What a recipe says of rows of several pictures."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..arguments import DENSE_TASKS, DataArguments


@dataclass
class MultimodalArguments(DataArguments):
    """Arguments of several aligned pictures of one scene, such as colours, depth and classes.

    `input_column` is `{modality: column}`, which may leave some of the model's modalities out; one name alone is the column
    of rgb; None: columns named as the modalities. `label_column` of a dense task is the column of the class map or depth map.
    `cache` is false unless the recipe says otherwise: pictures take far less room than what is made of them.

    Attributes:
        label_names: `"semantic_segmentation"`: names of the classes by their id. None: the scenes' own, or numbers up to
            the largest id in the training split.
        label_scale: `"depth_estimation"`: label maps are multiplied by this, such as 0.001 for 16-bit millimetres, which
            is also the scenes' default. None elsewhere: 1.
        label_invalid_value: `"depth_estimation"`: pixels of this raw value have no known depth, as those have whose value
            is not a number, or not above 0.
        modality_options: Modality -> how its pictures become inputs, the fields `scale`, `standardize`,
            `mean`, `std`, `resample`, `flips_x` and `invalid_value` of `MultiMAEImageProcessor`; `standardize: dataset`
            without `mean` measures both on the training split, and is the default of every modality but rgb, depth
            and normals, which have their own. In depth, 0 is a hole (`invalid_value: 0`). What is given here also
            replaces what a checkpoint's processor has.
        augment: Training rows are cropped and mirrored at random, all modalities and label maps alike,
            anew in every epoch; `cache` then has no meaning for them. What is drawn depends on `split_seed`, the run's
            seed, the epoch and the row alone, so a resumed run draws the same. Of a stream it is drawn from torch's random
            numbers.
        crop_scale: Share of the picture's area that a random crop has, lowest and highest.
        crop_ratio: Its width over its height, where 1 is the ratio of the model's `image_size`.
        flip_probability: How often it is mirrored.
        crop_fraction: Without `augment`, and in validation and test: None resizes the whole picture,
            whatever its aspect ratio; a number in (0, 1] takes the largest box of the model's aspect ratio out of the
            middle, its sides multiplied by this.
        allow_missing: Rows may lack a modality (a null, a file that is not there), which the model then
            neither sees nor predicts. Otherwise they are an error.
        verify_images: Open every picture once before anything else; `num_proc` processes share the
            work. Rows with unreadable ones are left out with a warning that names them; more than 1 % of the rows stop the
            run.
    """

    kind: str = "multimodal"
    label_names: list[str] | None = None
    label_scale: float | None = None
    label_invalid_value: float | None = None
    modality_options: dict[str, dict[str, Any]] | None = None
    augment: bool = False
    crop_scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [0.75, 4 / 3])
    flip_probability: float = 0.5
    crop_fraction: float | None = None
    allow_missing: bool = False
    verify_images: bool = True

    TASKS: ClassVar[tuple[str, ...]] = ("classification", "regression", *DENSE_TASKS)
    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, dict, type(None))
    CACHES: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """As `DataArguments`."""
        super().__post_init__()
        if self.builtin is not None and self.label_scale is None and self.task == "depth_estimation":
            self.label_scale = self.builtin.depth_scale
        dense = {"label_names": "semantic_segmentation"}
        dense |= {"label_scale": "depth_estimation", "label_invalid_value": "depth_estimation"}
        for name, task in dense.items():
            if getattr(self, name) is not None and self.task != task:
                raise ValueError(f"data.{name} is for task {task!r}; task is {self.task!r}: remove it")
        if self.label_scale is not None and self.label_scale <= 0.0:
            raise ValueError(f"data.label_scale: expected a positive number, got {self.label_scale}")

    @property
    def may_lack_columns(self) -> bool:
        """As `DataArguments`."""
        return self.allow_missing

    @property
    def label_maps(self) -> list[str]:
        """The column of the label, where this is a map as large as the picture."""
        return [self.label_column] if self.task in DENSE_TASKS and self.label_column is not None else []
