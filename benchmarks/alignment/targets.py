"""What SAIL's defaults should reach, told also where they fall short. Knows figures, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.alignment.table import Interval, Table, Unit, win_rate


@dataclass(frozen=True)
class Target:
    """What was aimed at, as a mean over tastes, and what came of it."""

    what: str
    least: float
    found: Interval
    low: float | None = None
    """What the lower end of the interval should be at least."""

    @property
    def reached(self) -> bool | None:
        """None while it is not measured."""
        told = [(self.found["mean"], self.least)]
        if self.low is not None:
            told.append((self.found["low"], self.low))
        if any(value is None for value, _ in told):
            return None
        return all(value >= least for value, least in told)


def targets(table: Table) -> list[Target]:
    """All of them, on whatever was measured."""

    def wins(method: str, other: str) -> Interval:
        return table.paired(method, other, win_rate)

    def mean(figure: Callable[[Unit], float | None]) -> Interval:
        return table.over_repeats("sail_6", figure)

    return [
        Target("wins against dpo_100", 0.5, wins("sail_6", "dpo_100"), low=0.48),
        Target("wins against dpo_6", 0.58, wins("sail_6", "dpo_6")),
        Target("wins against sail_6_paper", 0.54, wins("sail_6", "sail_6_paper")),
        Target("or sail_6_half_labels against it", 0.5, wins("sail_6_half_labels", "sail_6_paper")),
        Target("diversity beside base's", 0.85, mean(_diversity)),
        Target("prompt following less base's", -0.03, table.paired("sail_6", "base", _following)),
        Target("judge, pairs that nobody labelled", 0.8, mean(_judge)),
        Target("judge, its own pairs", 0.75, mean(_own_pairs)),
    ]


def _following(own: Unit, other: Unit) -> float:
    return float(own["prompt_following"] - other["prompt_following"])


def _diversity(unit: Unit) -> float:
    """Of the adapter that is current; where no round was accepted that is base."""
    current = unit["current"]
    return 1.0 if current is None else float(unit["rounds"][current]["diversity_ratio"])


def _judge(unit: Unit) -> float | None:
    current = unit["current"]
    return None if current is None else float(unit["rounds"][current]["judge_accuracy"])


def _own_pairs(unit: Unit) -> float | None:
    found = [(one["learned_from"] or {}).get("right") for one in unit["rounds"]]
    known = [right for right in found if right is not None]
    return float(np.mean(known)) if known else None
