"""Numbers out of range: one rule and one message for all dataclasses of arguments."""

import math
from dataclasses import dataclass

import pytest

from hf_maskssl.checks import ABOVE_0, AT_LEAST_1, SHARE, SHARE_BELOW_1, Range, check_numbers, check_seeds


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


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1, 2]])
def test_seeds_must_differ(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="probe.seeds: expected different integers, 0 or more, at least one"):
        check_seeds("probe.seeds", seeds)
