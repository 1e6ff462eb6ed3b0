"""Checks that the dataclasses of arguments share: what a number may be, and what an error says of one that may not."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

LONGEST_VALUE = 200  # characters of a value that an error shows
LONGEST_CHANGED = 80  # characters of one of the two values of a change
_ABSENT = object()


def shown(value: object) -> str:
    """A value as errors show it: its repr, cut where that is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def changes(before: Mapping[str, object], now: Mapping[str, object], section: str = "") -> list[str]:
    """The entries that are not what they were, one by one: "training.batch_size was 8, is now 4".

    Of what is nested only the entries that differ are named, and of a long value the part from the first difference on.

    Args:
        before: Name -> its former value. A name that is absent has the value None.
        now: Name -> its value of now, in the same types.
        section: Words before the names, such as "training.".
    """
    names = dict.fromkeys([*before, *now])
    return [
        words
        for name in names
        if before.get(name) != now.get(name)
        for words in _changes(f"{section}{name}", before.get(name, _ABSENT), now.get(name, _ABSENT))
    ]


def _changes(name: str, before: object, now: object) -> Iterator[str]:
    """The differences of two unlike values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            pair = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if pair[0] != pair[1]:
                yield from _changes(f"{name}.{key}", *pair)
        return
    texts = ["absent" if value is _ABSENT else repr(value) for value in (before, now)]
    is_long = max(map(len, texts)) > LONGEST_CHANGED
    if is_long and isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            if pair[0] != pair[1]:
                yield from _changes(f"{name}[{place}]", *pair)
        return
    start = len(os.path.commonprefix(texts)) if is_long else 0
    former, present = (_cut(text, max(0, start - 10)) for text in texts)
    yield f"{name} was {former}, is now {present}"


def _cut(text: str, start: int) -> str:
    """The part of a text from `start` on, cut where that is long."""
    part = text[start:]
    end = "" if len(part) <= LONGEST_CHANGED else "..."
    return f"{'...' if start else ''}{part[:LONGEST_CHANGED]}{end}"


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes, both ends included unless said otherwise; NaN and the infinite are in no range."""

    low: float
    high: float = math.inf
    excludes_low: bool = False
    excludes_high: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = value > self.low if self.excludes_low else value >= self.low
        return math.isfinite(value) and is_above and (value < self.high if self.excludes_high else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a finite number"
            return f"a number above {self.low:g}" if self.excludes_low else f"at least {self.low:g}"
        first, last = "(" if self.excludes_low else "[", ")" if self.excludes_high else "]"
        high = f"{self.high:g}" if self.high < 1e6 else f"{self.high:.0f}"
        return f"a number in {first}{self.low:g}, {high}{last}"


FINITE = Range(-math.inf)
SEED = Range(0, 2**32 - 1)  # what NumPy's generators take
AT_LEAST_0, AT_LEAST_1, ABOVE_0 = Range(0), Range(1), Range(0, excludes_low=True)
SHARE, SHARE_BELOW_1 = Range(0, 1), Range(0, 1, excludes_high=True)


def check_numbers(section: str, arguments: object, ranges: Mapping[str, Range]) -> None:
    """Refuse a dataclass in which a number is out of its range; None, where a field is not set, is in every range.

    Every number of a list or a dictionary is looked at. A number of a field without a range must be finite.

    Args:
        section: Words before the name of the field in errors, such as `"data."`.
        arguments: An instance of a dataclass.
        ranges: Name of a field -> the numbers that it takes.

    Raises:
        ValueError: Naming the field, the numbers it takes and the one that came.
    """
    for field in dataclasses.fields(arguments):  # type: ignore[arg-type]  # mypy has no type for "a dataclass"
        expected = ranges.get(field.name, FINITE)
        for place, number in _numbers(getattr(arguments, field.name)):  # a table names the fields
            if number not in expected:
                or_nothing = " or nothing" if field.default is None else ""
                raise ValueError(f"{section}{field.name}{place}: expected {expected}{or_nothing}, got {number}")


def _numbers(value: object) -> Iterator[tuple[str, float]]:
    """The numbers in a value, each with its place there: "" for the value itself, "[1]" and ".train" for entries."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield "", value
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from ((f"[{position}]{place}", number) for place, number in _numbers(item))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((f".{key}{place}", number) for place, number in _numbers(item))


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Refuse seeds of runs that are none, negative, or given twice.

    Raises:
        ValueError: Naming the field and what came.
    """
    if not seeds or len(set(seeds)) != len(seeds) or any(seed not in SEED for seed in seeds):
        raise ValueError(f"{name}: expected different integers, 0 or more, at least one, got {shown(seeds)}")
