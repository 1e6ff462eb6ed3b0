"""Checks of arguments that their dataclasses share: the range of a number, and the error for one outside."""

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
    """Refuse a dataclass in which a number is out of its range; None (a field that is not set) is in every range.

    Args:
        section: Text before the name of the field in errors, such as `"data."`.
        arguments: Instance of a dataclass.
        ranges: Name of a field -> its range.

    Raises:
        ValueError: A number is out of range; the error names field, range and number.
    """
    for field in dataclasses.fields(arguments):  # type: ignore[arg-type]  # mypy has no type for "a dataclass"
        value = getattr(arguments, field.name)  # a table names the fields
        if value is not None and field.name in ranges and value not in ranges[field.name]:
            or_nothing = " or nothing" if field.default is None else ""
            raise ValueError(f"{section}{field.name}: expected {ranges[field.name]}{or_nothing}, got {value}")


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Refuse an empty list of seeds, and seeds that are negative or given twice.

    Raises:
        ValueError: The seeds are refused; the error names field and seeds.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(f"{name}: expected different integers, 0 or more, at least one, got {seeds}")
