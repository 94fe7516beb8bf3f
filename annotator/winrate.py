"""Wins, losses and ties -> a share with its interval, and in words. Knows no image and no database."""

from __future__ import annotations

import math

from annotator.rows import Tally
from sail.records import Z_95, Interval

FEWEST = 10
"""Nothing is settled by fewer answers: four wins in a row leave 50 % out by chance in one of eight cases."""
MOST = 1000
"""A difference that needs more answers than this is called hardly one."""


def win_rate(tally: Tally) -> Interval:
    """Share of comparisons won, ties counted half, with a 95 % Wilson interval.

    Ties vary less than the coin the interval supposes, so that it is a little too wide with many of them.
    """
    return Interval.of(tally.wins + tally.ties / 2, tally.wins + tally.losses + tally.ties)


def answers_to_settle(rate: Interval) -> int | None:
    """How many more answers leave 50 % outside of the interval if the share stays as it is; 0: it is settled.

    A Wilson interval of n answers leaves out 50 % exactly where n > (Z_95 / (2 |share - 1/2|))^2, being the
    test of that hypothesis turned round. None where that takes more than MOST answers.
    """
    difference = abs((rate.value if rate.value is not None else 0.5) - 0.5)
    if difference == 0 or (Z_95 / (2 * difference)) ** 2 >= MOST:
        return None
    needed = max(FEWEST, math.floor((Z_95 / (2 * difference)) ** 2) + 1)
    return max(0, needed - rate.n)


def in_words(tally: Tally, *, one: str, two: str) -> str:
    """The result for a person; `one` is whose wins are counted."""
    rate = win_rate(tally)
    if rate.value is None or rate.low is None or rate.high is None:
        return "No comparison is answered yet."
    tied = {0: "", 1: ", with 1 tie"}.get(tally.ties, f", with {tally.ties} ties")
    half = " with ties counted half" if tally.ties else ""
    share, low, high = (round(100 * value) for value in (rate.value, rate.low, rate.high))
    noun = "comparison" if rate.n == 1 else "comparisons"
    figures = f"{share} %{half}, 95 % interval {low} to {high}"
    return f"{one} was preferred in {tally.wins} of {rate.n} {noun}{tied} ({figures}). {_verdict(rate, two)}"


def _verdict(rate: Interval, two: str) -> str:
    more = answers_to_settle(rate)
    if more is None:
        return "There is hardly a difference to settle."
    if more > 0:
        # The share is itself uncertain, so that an exact number would promise too much.
        about = more if more <= 5 else 5 * math.ceil(more / 5)
        return f"About {about} more {'answer' if about == 1 else 'answers'} would settle it."
    assert rate.value is not None
    return "That settles it." if rate.value > 0.5 else f"That settles it: {two} is preferred."
