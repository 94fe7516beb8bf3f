"""What SAIL's defaults should reach, told also where they fall short. Knows figures, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.alignment.table import Interval, Table, Unit, own_accuracy, win_rate


@dataclass(frozen=True)
class Target:
    """What was aimed at, as a mean over tastes, and what came of it."""

    what: str
    least: float
    found: Interval
    tastes: int = 0
    repeats: int = 0
    """That it was found on."""
    all_tastes: int = 0
    """Of the table: a mean of a few of them is not the mean that was aimed at, since tastes differ more than
    methods do."""
    low: float | None = None
    """What the lower end of the interval should be at least."""

    @property
    def reached(self) -> bool | None:
        """None while it is not measured, on all tastes and often enough to have an interval."""
        if self.tastes < self.all_tastes or self.found["low"] is None:
            return None
        told = [(self.found["mean"], self.least)]
        if self.low is not None:
            told.append((self.found["low"], self.low))
        return all(value is not None and value >= least for value, least in told)


def targets(table: Table) -> list[Target]:
    """All of them, on whatever was measured."""

    def on(what: str, least: float, found: Interval, units: list[Unit], low: float | None = None) -> Target:
        tastes, repeats = (len({unit[key] for unit in units}) for key in ("taste", "repeat"))
        return Target(what, least, found, tastes, repeats, len(table.tastes), low)

    def wins(what: str, method: str, other: str, least: float, low: float | None = None) -> Target:
        return on(what, least, table.paired(method, other, win_rate), table.complete(method, other), low)

    def mean(what: str, figure: Callable[[Unit], float | None], least: float) -> Target:
        return on(what, least, table.over_repeats("sail_6", figure), table.complete("sail_6"))

    following = table.paired("sail_6", "base", _following)
    return [
        wins("wins against dpo_100", "sail_6", "dpo_100", 0.5, low=0.48),
        wins("wins against dpo_6", "sail_6", "dpo_6", 0.58),
        wins("wins against sail_6_paper", "sail_6", "sail_6_paper", 0.54),
        wins("or sail_6_half_labels against it", "sail_6_half_labels", "sail_6_paper", 0.5),
        mean("diversity beside base's", _diversity, 0.85),
        on("prompt following less base's", -0.03, following, table.complete("sail_6", "base")),
        mean("judge, pairs that nobody labelled", _judge, 0.8),
        mean("judge, best against worst of its own images", _own_pairs, 0.75),
    ]


def _following(own: Unit, other: Unit) -> float:
    return float(own["prompt_following"] - other["prompt_following"])


def _diversity(unit: Unit) -> float:
    return float(unit["diversity_ratio"])


def _judge(unit: Unit) -> float | None:
    current = unit["current"]
    return None if current is None else float(unit["rounds"][current]["judge_accuracy"])


def _own_pairs(unit: Unit) -> float | None:
    return own_accuracy([unit], "best_worst")
