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
    test of that hypothesis turned round. None where that takes more than MOST answers, after FEWEST.
    """
    difference = abs((rate.value if rate.value is not None else 0.5) - 0.5)
    if difference == 0 or (Z_95 / (2 * difference)) ** 2 >= MOST:
        return FEWEST - rate.n if rate.n < FEWEST else None
    needed = max(FEWEST, math.floor((Z_95 / (2 * difference)) ** 2) + 1)
    return max(0, needed - rate.n)


def verdict(tally: Tally, *, one: str, two: str) -> str:
    """What it comes to, for a person; `one` is whose wins are counted."""
    rate = win_rate(tally)
    if rate.value is None:
        return "No comparison is answered yet."
    if rate.n < FEWEST:
        return "Too few answers to tell yet."
    more = answers_to_settle(rate)
    if more is None:
        return f"No clear difference between {one} and {two}."
    better = one if rate.value > 0.5 else two
    said = f"{better} is ahead, but it is not settled." if more else f"{better} is preferred."
    return said[0].upper() + said[1:]


def figures(tally: Tally, *, one: str) -> str:
    """The share behind the verdict, and what would settle it; empty before the first answer."""
    rate = win_rate(tally)
    if rate.value is None or rate.low is None or rate.high is None:
        return ""
    share, low, high = (round(100 * value) for value in (rate.value, rate.low, rate.high))
    half = ", counting a tie as half" if tally.ties else ""
    said = f"{one.capitalize()} won {share} %{half}; the true share is probably between {low} and {high} %."
    more = answers_to_settle(rate)
    return f"{said} {_more(more)}" if more else said


def _more(answers: int) -> str:
    # The share is itself uncertain, so that an exact number would promise too much.
    about = answers if answers <= 5 else 5 * math.ceil(answers / 5)
    return f"About {about} more {'answer' if about == 1 else 'answers'} would tell."
