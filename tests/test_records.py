"""What travels between the algorithm and the app."""

import pytest
from scipy.stats import binomtest

from sail.records import Interval


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (10, 10), (3, 40), (200, 400)])
def test_the_interval_of_a_share_is_wilsons(successes: int, n: int) -> None:
    found = Interval.of(successes, n)
    low, high = binomtest(successes, n).proportion_ci(method="wilson")
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_half_a_success_counts_so() -> None:
    between = Interval.of(2.5, 10)
    assert between.value == 0.25
    assert Interval.of(2, 10).low < between.low < Interval.of(3, 10).low


def test_a_share_of_none_is_not_a_number() -> None:
    assert Interval.of(0, 0) == Interval(value=None, low=None, high=None, n=0)
