"""The entries of `data.augmentation`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ...checks import ABOVE_0, AT_LEAST_1, SHARE, Range, check_numbers
from ...files import did_you_mean

JITTERED = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture beside crops and mirroring; nothing by default.

    Colours change in the order of these fields, RandAugment last. Pictures of a row that are no colours (depth, class maps, maps
    to learn) are moved with them where RandAugment moves them, and are otherwise left as they are.

    Attributes:
        three_augment: Whether to take one of grey, solarise and blur, each as often (3-Augment of DeiT III, Touvron et al. 2022).
        color_jitter: Largest changes of brightness, contrast, saturation (factors of 1 plus or minus so much) and hue (a share of
            the colour circle, at most 0.5), in random order; one number stands for the first three. None changes none.
        color_jitter_probability: Probability of the jitter.
        gray_probability: Probability that a picture loses its colours.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Lowest and highest standard deviation of the blur, in pixels of the model's input.
        solarize_probability: Probability that values from `solarize_threshold` on are inverted.
        solarize_threshold: Value (0 to 255) from which on they are.
        rand_augment_magnitude: Magnitude, 0 to 10, of RandAugment (Cubuk et al. 2020) with the operations of timm, of which all
            grow with it ("inc1"): "Rand(9, 0.5)" is 9. None means no RandAugment.
        rand_augment_std: Standard deviation of the magnitude of each operation.
        rand_augment_operations: Number of operations, drawn with replacement.
        rand_augment_probability: Probability that a drawn operation takes place.
        erasing_probability: Probability that a rectangle is replaced by noise, after standardisation (Zhong et al. 2020).
        erasing_area: Lowest and highest share of the picture that it covers.
        erasing_ratio: Lowest and highest height of it over its width.
        large_scale_jitter: Lowest and highest size, such as [0.1, 2.0], of the whole picture within the model's input, in place
            of crops of some area (Ghiasi et al. 2021): what is smaller is padded below and to the right, of what is larger a
            random part is shown. Padding is not observed, and has no label. Only for kind "multimodal".
    """

    three_augment: bool = False
    color_jitter: float | list[float] | None = None
    color_jitter_probability: float = 1.0
    gray_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: list[float] = dataclasses.field(default_factory=lambda: [0.1, 2.0])
    solarize_probability: float = 0.0
    solarize_threshold: int = 128
    rand_augment_magnitude: float | None = None
    rand_augment_std: float = 0.5
    rand_augment_operations: int = 2
    rand_augment_probability: float = 0.5
    erasing_probability: float = 0.0
    erasing_area: list[float] = dataclasses.field(default_factory=lambda: [0.02, 1 / 3])
    erasing_ratio: list[float] = dataclasses.field(default_factory=lambda: [0.3, 10 / 3])
    large_scale_jitter: list[float] | None = None

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("color_jitter_probability", "gray_probability", "blur_probability"), SHARE),
        **dict.fromkeys(("solarize_probability", "rand_augment_probability", "erasing_probability"), SHARE),
        **dict.fromkeys(("blur_sigma", "erasing_ratio", "large_scale_jitter"), ABOVE_0),
        "color_jitter": Range(0),
        "solarize_threshold": Range(0, 256),
        "rand_augment_magnitude": Range(0, 10),
        "rand_augment_std": Range(0),
        "rand_augment_operations": AT_LEAST_1,
        "erasing_area": Range(0, 1, excludes_low=True),
    }

    def __post_init__(self) -> None:
        """Refuse values that no picture can be changed by.

        Raises:
            ValueError: Naming the field, what was expected and what came.
        """
        check_numbers("data.augmentation.", self, self.RANGES)
        for name in ("blur_sigma", "erasing_area", "erasing_ratio", "large_scale_jitter"):
            bounds = vars(self)[name]
            if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
                raise ValueError(f"data.augmentation.{name}: expected two numbers, the lower first, got {bounds}")
        jitter = self.jitter()
        if len(jitter) != len(JITTERED) or jitter[3] > 0.5:
            raise ValueError(
                f"data.augmentation.color_jitter: expected one number, or one each for {', '.join(JITTERED)} (at most 0.5), got "
                f"{self.color_jitter}"
            )

    def jitter(self) -> list[float]:
        """Largest change of brightness, contrast, saturation and hue."""
        if isinstance(self.color_jitter, list):
            return self.color_jitter
        return [self.color_jitter or 0.0] * 3 + [0.0]

    @property
    def changes_colours(self) -> bool:
        """Whether some entry needs pictures of bytes in three colours."""
        shares = (self.gray_probability, self.blur_probability, self.solarize_probability)
        return self.three_augment or any(self.jitter()) or any(shares) or self.rand_augment_magnitude is not None

    @property
    def changes_rows(self) -> bool:
        """Whether anything happens beside crops and mirroring."""
        return self.changes_colours or self.erasing_probability > 0


def parse_augmentation(entries: Mapping[str, object] | None, allowed: bool, jitters_scale: bool) -> Augmentation:
    """`data.augmentation` as an `Augmentation`, nothing where it is None.

    Args:
        entries: The recipe's entries.
        allowed: Whether `data.augment` is true, without which nothing is drawn.
        jitters_scale: Whether the kind of data knows `large_scale_jitter`.

    Raises:
        ValueError: An unknown entry, a value of another type or out of range, or entries that have no effect.
    """
    if entries is None:
        return Augmentation()
    fields = {field.name: field for field in dataclasses.fields(Augmentation)}
    for name, value in entries.items():
        if name not in fields:
            raise ValueError(
                f"data.augmentation: unknown entry {name!r}{did_you_mean(name, fields)}; known are {list(fields)}"
            )
        kind = fields[name].type
        expected = kind.__name__ if kind in (bool, int, float) else str(kind)
        if not _fits(value, expected):
            raise ValueError(f"data.augmentation.{name}: expected {expected}, got {value!r}")
    if not allowed:
        raise ValueError(
            "data.augmentation changes rows only with data.augment: set it to true, or leave augmentation out"
        )
    found = Augmentation(**entries)  # type: ignore[arg-type]  # of the types just checked
    if found.large_scale_jitter is not None and not jitters_scale:
        raise ValueError(
            "data.augmentation.large_scale_jitter is for data.kind 'multimodal', whose padding has no label"
        )
    return found


class DrawnViews(Protocol):
    """Arguments of data whose training rows are cropped and mirrored."""

    crop_scale: list[float]
    flip_probability: float
    augmentation: dict[str, Any] | None

    @property
    def augmentation_entries(self) -> Augmentation: ...


def augmentation_words(args: DrawnViews) -> str:
    """What happens to training pictures, in words."""
    entries = args.augmentation_entries
    low, high = (f"{share:.0%}" for share in entries.large_scale_jitter or args.crop_scale)
    what = (
        f"shown at {low} to {high} of their size"
        if entries.large_scale_jitter
        else f"random crops of {low} to {high} of their area"
    )
    words = [what, f"mirrored with probability {args.flip_probability:g}"]
    words += [f"{name} {value}" for name, value in (args.augmentation or {}).items() if name != "large_scale_jitter"]
    return ", ".join(words)


def _fits(value: object, annotation: str) -> bool:
    """Whether a value of YAML has one of the types of a field."""
    kinds = annotation.split(" | ")
    if value is None or isinstance(value, bool):
        return ("None" if value is None else "bool") in kinds
    if isinstance(value, list):
        return "list[float]" in kinds and all(_fits(item, "float") for item in value)
    return (isinstance(value, int) and "int" in kinds) or (isinstance(value, int | float) and "float" in kinds)
