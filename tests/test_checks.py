"""Numbers out of range: one rule and one message for all dataclasses of arguments."""

import math
from dataclasses import dataclass

import pytest

from hf_maskssl.checks import ABOVE_0, AT_LEAST_1, SHARE, SHARE_BELOW_1, Range, changes, check_numbers, check_seeds


@dataclass
class Arguments:
    steps: int = 1
    share: float = 0.0
    limit: float | None = None


RANGES = {"steps": AT_LEAST_1, "share": SHARE_BELOW_1, "limit": ABOVE_0}


@pytest.mark.parametrize("values", [{}, {"steps": 1, "share": 0.999}, {"limit": None}, {"limit": 1e-9}])
def test_numbers_in_their_range_pass(values: dict[str, float]) -> None:
    check_numbers("data.", Arguments(**values), RANGES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "data.steps: expected at least 1, got 0"),
        ({"share": 1.0}, "data.share: expected a number in [0, 1), got 1.0"),
        ({"share": math.nan}, "data.share: expected a number in [0, 1), got nan"),
        ({"limit": 0.0}, "data.limit: expected a number above 0 or nothing, got 0.0"),
    ],
)
def test_numbers_out_of_range_are_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_numbers("data.", Arguments(**values), RANGES)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_ends_belong_to_a_range_unless_excluded() -> None:
    assert 0 in SHARE and 1 in SHARE and 1 not in SHARE_BELOW_1
    inner = Range(0, 1, excludes_low=True, excludes_high=True)
    assert 0 not in inner and 1 not in inner and 0.5 in inner
    assert str(inner) == "a number in (0, 1)"


LONG = [f"class {number}" for number in range(40)]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"size": 8, "seed": 0}, {"size": 4, "seed": 0}, ["data.size was 8, is now 4"]),
        ({"size": None}, {}, []),  # an earlier version had no such field
        ({"size": 8}, {}, ["data.size was 8, is now absent"]),
        (
            {"of": {"a": {"x": 1, "y": 2}, "b": 3}},
            {"of": {"a": {"x": 1, "y": 4}, "b": 3}},
            ["data.of.a.y was 2, is now 4"],
        ),
        (
            {"of": {"a": 1}},
            {"of": {"b": None}},
            ["data.of.a was 1, is now absent", "data.of.b was absent, is now None"],
        ),
        ({"names": LONG}, {"names": [*LONG[:39], "other"]}, ["data.names[39] was 'class 39', is now 'other'"]),
        (
            {"text": 200 * "a" + "b"},
            {"text": 200 * "a" + "c"},
            ["data.text was ...aaaaaaaaaab', is now ...aaaaaaaaaac'"],
        ),
    ],
)
def test_changes_name_the_entries_that_differ(
    before: dict[str, object], now: dict[str, object], expected: list[str]
) -> None:
    assert changes(before, now, "data.") == expected


def test_values_of_a_change_are_short() -> None:
    (words,) = changes({"names": LONG}, {"names": LONG[:20]})
    assert words == f"names was ...{repr(LONG)[repr(LONG[:20]).rindex(']') - 10 :][:80]}..., is now ...'class 19']"


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1, 2]])
def test_seeds_must_differ(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="probe.seeds: expected different integers, 0 or more, at least one"):
        check_seeds("probe.seeds", seeds)
