"""Checks that configurations share: sizes as pairs, and refusals of impossible fields, whose errors name the field."""

import math
from typing import Any

from transformers import PreTrainedConfig


def pair(size: int | list[int] | tuple[int, ...]) -> list[int]:
    """[height, width] of a size; one number means a square. The result is a list, because JSON turns tuples into lists."""
    return [size, size] if isinstance(size, int) else list(size)


class SizesAsPairs:
    """The first base of a configuration or processor of pictures: sizes are [height, width] however they are set.

    That is in the constructor, by `from_pretrained(..., image_size=32)` or by `config.image_size = 32`.
    """

    def is_pair(self, name: str) -> bool:
        """Whether the field is a height and a width."""
        return name == "image_size"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, pair(value) if isinstance(value, int | tuple) and self.is_pair(name) else value)


def check_at_least(config: PreTrainedConfig, minimum: float, *names: str) -> None:
    """Refuse fields that are not finite numbers of at least `minimum`, None, or lists of such numbers.

    Raises:
        ValueError: A smaller number, NaN or an infinite one.
    """
    for name in names:
        if not all(math.isfinite(number) and number >= minimum for number in _numbers(config, name)):
            expected = "finite" if math.isinf(minimum) else f"at least {minimum}" if minimum else "0 or more"
            raise ValueError(f"`{name}` must be {expected}, got {_value(config, name)}.")


def check_positive(config: PreTrainedConfig, *names: str) -> None:
    """Refuse fields that are not finite numbers above 0, None, or lists of such numbers.

    Raises:
        ValueError: Another number.
    """
    for name in names:
        if not all(math.isfinite(number) and number > 0 for number in _numbers(config, name)):
            raise ValueError(f"`{name}` must be positive and finite, got {_value(config, name)}.")


def check_token_id(config: PreTrainedConfig, vocab_size: int | None, *names: str) -> None:
    """Refuse fields that are not ids of a vocabulary or None.

    Raises:
        ValueError: An id that the vocabulary does not have.
    """
    for name in names:
        for number in _numbers(config, name):
            if vocab_size is not None and not 0 <= number < vocab_size:
                raise ValueError(f"`{name}` must be None or lie in [0, vocab_size={vocab_size}), got {number}.")


def check_probabilities(config: PreTrainedConfig, *names: str, one_is_allowed: bool = False) -> None:
    """Refuse fields outside [0, 1), or outside [0, 1] where `one_is_allowed`.

    Raises:
        ValueError: Another number.
    """
    for name in names:
        for value in _numbers(config, name):
            if not (0 <= value < 1 or one_is_allowed and value == 1):
                expected = "0 to 1" if one_is_allowed else "0 to below 1"
                raise ValueError(f"`{name}` is a probability, expected {expected}, got {value}.")


def check_heads(config: PreTrainedConfig, width_name: str, heads_name: str, default: int | None = None) -> int:
    """Refuse a width of all attention heads together that is no positive multiple of their number.

    Args:
        config: The configuration.
        width_name: Name of the field with the width.
        heads_name: Name of the field with the number of heads.
        default: Width that stands for None.

    Returns:
        The width.

    Raises:
        ValueError: Another width, or no heads.
    """
    width, heads = _value(config, width_name) or default or 0, _value(config, heads_name)
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(
            f"`{width_name}` must be a positive multiple of `{heads_name}`, got {width} and {heads} heads."
        )
    return width


def check_partly_observed(config: PreTrainedConfig, values_per_token: int) -> None:
    """Refuse an embedding of tokens observed in part where a token has one value, which is there or not.

    Raises:
        ValueError: `partly_observed_embedding` is set for such tokens.
    """
    if _value(config, "partly_observed_embedding") and values_per_token == 1:
        raise ValueError(
            "`partly_observed_embedding` is for tokens of several values, but one value or id makes a token here: remove it."
        )


def check_category_counts(config: PreTrainedConfig, patch_size: int = 1) -> None:
    """Refuse numbers of categories that do not fit the table.

    Args:
        config: Configuration with `category_counts`, `modality`, `series_length` and `num_channels`.
        patch_size: Number of values in a token.

    Raises:
        ValueError: Another modality, several values in a token, another number of columns, or a column of one category.
    """
    counts = config.category_counts
    if counts is None:
        return
    if config.modality != "series" or config.num_channels != 1 or patch_size != 1:
        raise ValueError(
            "`category_counts` is for tables, whose columns are tokens of one value: modality 'series', num_channels 1, "
            f"patch_size 1; got '{config.modality}', {config.num_channels}, {patch_size}."
        )
    if len(counts) != config.series_length:
        raise ValueError(
            f"`category_counts` must have one number per column, series_length={config.series_length}, got {len(counts)}."
        )
    for column, count in enumerate(counts):
        if count < 0 or count == 1:
            raise ValueError(
                f"`category_counts` must be 0 (a column of numbers) or at least 2, got {count} for column {column}: a column "
                "of one category says nothing, leave it out."
            )
    if not any(counts):
        raise ValueError("`category_counts` is 0 for every column: set it to None, which reads numbers alone.")


def _numbers(config: PreTrainedConfig, name: str) -> list[float]:
    """A field's numbers; none where it is None."""
    value: object = _value(config, name)
    return [] if value is None else [*value] if isinstance(value, list | tuple) else [_value(config, name)]


def _value(config: PreTrainedConfig, name: str) -> int:
    return getattr(config, name)  # the checks get names, which their errors repeat


def check_mask_schedule(config: PreTrainedConfig, mask_ratio: float) -> None:
    """Refuse a schedule from random to guided masking that leads nowhere; `mask_ratio` is the share that is masked.

    Raises:
        ValueError: A schedule with another `masking`, a share outside (0, 1], or "widen" from less than is masked.
    """
    if config.mask_schedule != "none" and config.masking != "guided":
        raise ValueError(f"`mask_schedule` leads to guided masking, but `masking` is '{config.masking}': remove it.")
    start, fraction = config.mask_schedule_start, config.mask_schedule_fraction
    for name, share in (("mask_schedule_start", start), ("mask_schedule_fraction", fraction)):
        if not 0 < share <= 1:
            raise ValueError(f"`{name}` must be above 0 and at most 1, got {share}.")
    if config.mask_schedule == "widen" and start < mask_ratio:
        raise ValueError(
            f"`mask_schedule_start` {start} is the share that mask_schedule 'widen' starts from: it must be at least "
            f"`mask_ratio` {mask_ratio}."
        )
