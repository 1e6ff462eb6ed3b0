"""Checks that the dataclasses of arguments share: what a number may be, and what an error says of one that may not."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes, both ends included unless said otherwise; NaN is in no range."""

    low: float
    high: float = math.inf
    excludes_low: bool = False
    excludes_high: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = value > self.low if self.excludes_low else value >= self.low
        return is_above and (value < self.high if self.excludes_high else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"a number above {self.low:g}" if self.excludes_low else f"at least {self.low:g}"
        first, last = "(" if self.excludes_low else "[", ")" if self.excludes_high else "]"
        return f"a number in {first}{self.low:g}, {self.high:g}{last}"


AT_LEAST_0, AT_LEAST_1, ABOVE_0 = Range(0), Range(1), Range(0, excludes_low=True)
SHARE, SHARE_BELOW_1 = Range(0, 1), Range(0, 1, excludes_high=True)


def check_numbers(section: str, arguments: object, ranges: Mapping[str, Range]) -> None:
    """Refuse a dataclass in which a number is out of its range; None, where a field is not set, is in every range.

    Args:
        section: What stands before the name of the field in errors, such as `"data."`.
        arguments: An instance of a dataclass.
        ranges: Name of a field -> the numbers that it takes.

    Raises:
        ValueError: Naming the field, the numbers it takes and the one that came.
    """
    for field in dataclasses.fields(arguments):  # type: ignore[arg-type]  # mypy has no type for "a dataclass"
        value = getattr(arguments, field.name)  # the fields are named in a table
        if value is not None and field.name in ranges and value not in ranges[field.name]:
            or_nothing = " or nothing" if field.default is None else ""
            raise ValueError(f"{section}{field.name}: expected {ranges[field.name]}{or_nothing}, got {value}")


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Refuse seeds of runs that are none, negative, or given twice.

    Raises:
        ValueError: Naming the field and what came.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(f"{name}: expected different integers, 0 or more, at least one, got {seeds}")
