"""Which pairs a person is asked about, in the orders of Label. Knows no training and no figure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from annotator.ordering import Known, next_of
from annotator.rows import Order, PairState
from sail.annotate import ShownPair

OPEN_FOR_EACH = 2.5
"""So many pairs are drawn for each that is answered: there is something to choose from."""

Judge = Callable[[Sequence[int], Sequence[int]], Mapping[int, float]]
"""From the pairs that are answered, by their place, the margins of the others."""


def window(order: Order, count: int) -> int:
    """How many pairs are drawn for `count` answers."""
    return count if order == "random" else round(OPEN_FOR_EACH * count)


def asked_about(
    pairs: Sequence[ShownPair], order: Order, count: int, *, judge: Judge, seed: str
) -> list[int]:
    """The places of `count` pairs in the order in which they are asked about.

    For an order that goes by a judge's margins the first half comes by lot, and teaches it.
    """
    pairs = pairs[: window(order, count)]
    by_lot = list(range(count // 2 if order == "uncertain" else count if order == "random" else 0))
    if len(by_lot) == count:
        return by_lot
    open_ = [place for place in range(len(pairs)) if place not in by_lot]
    states = [
        PairState(id=pairs[place].id, ordinal=place, prompt=pairs[place].prompt, one="", two="")
        for place in open_
    ]
    margins = judge(by_lot, open_) if by_lot else {}
    known = Known(margins={pairs[place].id: margin for place, margin in margins.items()})
    chosen = next_of(states, order, known, random.Random(seed))
    return [*by_lot, *(pair.ordinal for pair, _ in islice(chosen, count - len(by_lot)))]
