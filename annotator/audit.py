"""How clear self pairs are, the random sample that is judged blind, and what it says. Knows no database."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sail.records import Decision, Interval

AT_LEAST = 10
SHARE = 0.1
THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Multiples of a typical margin over which pairs can be approved in bulk."""
Side = Literal["left", "right"]
Certainty = Literal["sure", "fairly sure", "a guess"]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A pair of the sample: how clear it was to the judge, and what a person said without knowing that."""

    pair: str
    clarity: float
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What the sample says of the pairs that are at least so clear."""

    over: float
    error: Interval


def sample(pairs: Iterable[str]) -> list[str]:
    """Ids of the pairs to judge blind: a tenth, but at least ten where there are as many.

    A lot by hash: ids are random, so that the same pairs give the same sample and nothing has to be kept.
    """
    by_lot = sorted(pairs, key=_lot)
    return by_lot[: max(AT_LEAST, math.ceil(SHARE * len(by_lot)))]


def winner_side(pair: str) -> Side:
    """Where the judge's winner stands: drawn by lot, the same for everybody and for ever."""
    return "left" if int(_lot(f"side/{pair}"), 16) % 2 else "right"


def _lot(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def decision_for(pair: str, side: Side) -> Decision:
    """To choose the judge's winner is to approve it, to choose the other is to flip it."""
    return "approve" if side == winner_side(pair) else "flip"


def typical_margin(margins: Collection[float]) -> float:
    """Root mean square of a run's margins: what a margin is large or small beside; 0 for none."""
    return math.hypot(*margins) / math.sqrt(len(margins) or 1)


def clarities(margins: Mapping[str, float]) -> dict[str, float]:
    """How many times the typical margin of its run each pair's margin is.

    Not how many of its own standard errors: draws differ most where most is at stake, so that divided by
    their spread the emptiest pairs come out as the clearest.
    """
    typical = typical_margin(margins.values())
    return {pair: margin / typical if typical else 0.0 for pair, margin in margins.items()}


def certainty(clarity: float) -> Certainty:
    """A clarity in words."""
    return "sure" if clarity >= 1 else "fairly sure" if clarity >= 0.5 else "a guess"


def error(audited: Iterable[Audited], *, over: float = -math.inf) -> Interval:
    """Share of the sample's pairs at least that clear in which the person did not agree with the judge."""
    wrong = [one.decision != "approve" for one in audited if one.clarity >= over]
    return Interval.of(sum(wrong), len(wrong))


def by_threshold(audited: Iterable[Audited]) -> list[Threshold]:
    found = list(audited)
    return [Threshold(over=over, error=error(found, over=over)) for over in THRESHOLDS]
