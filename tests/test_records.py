"""What travels between the algorithm and the app."""

import pytest
from pydantic import ValidationError
from scipy.stats import binomtest

from sail.records import Candidate, CandidateSet, Interval, JudgedPair, human_margin


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


@pytest.mark.parametrize(
    ("successes", "n", "words"),
    [
        (0, 0, None),
        (0, 1, "0 of 1 (95 % interval 0 to 79 %)"),
        (8.5, 10, "8.5 of 10 (95 % interval 54 to 96 %)"),
        (15, 20, "75 % of 20 (95 % interval 53 to 89 %)"),
    ],
)
def test_few_are_told_as_a_count_and_many_in_per_cent(successes: float, n: int, words: str | None) -> None:
    assert Interval.of(successes, n).in_words() == words


@pytest.mark.parametrize("pair", [(0, 2), (-1, 0)])
def test_no_candidate_is_shown_that_is_not_there(pair: tuple[int, int]) -> None:
    two = tuple(Candidate(index=index, image=f"candidates/00000-{index}.png") for index in range(2))
    drawn = {"prompt_index": 0, "prompt": "a fox", "latents": "candidates/00000.safetensors"}
    CandidateSet(**drawn, candidates=two, to_show=((1, 0),))
    with pytest.raises(ValidationError, match="is to be shown, and there are 2"):
        CandidateSet(**drawn, candidates=two, to_show=(pair,))


def judged(*margins: float, held_out: bool = False) -> list[JudgedPair]:
    return [
        JudgedPair(id=str(number), margin=margin, margin_error=0.1, held_out=held_out)
        for number, margin in enumerate(margins)
    ]


def test_how_clear_human_pairs_are_is_the_middle_size_of_the_margins_learned_from() -> None:
    assert human_margin([*judged(-0.1, 3.0, 0.4), *judged(-9.0, -9.0, held_out=True)]) == 0.4
    assert human_margin(judged(1.0, held_out=True)) is None
