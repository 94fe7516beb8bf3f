"""Units -> means with intervals. Knows no model and no words.

The unit of chance is the repeat: a method's figures are averaged over tastes within each repeat, and the
interval is Student's over repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

Unit = dict[str, Any]
Interval = dict[str, float | None]
"""`mean`, `low`, `high`; without ends where there are fewer than `ENOUGH` repeats."""
ENOUGH = 3
"""Student's interval of two values spans 25 times their difference, or next to nothing where they happen to
agree: either is read as more than it says."""
ALIKE_SD = 0.1
"""Two images whose utilities differ by less, in standard deviations of base's images, are a draw."""


class Table:
    """All units that were measured, by method, taste and repeat. ValueError where one is there twice."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._units: dict[tuple[str, str, int], Unit] = {}
        for unit in units:
            key = unit["method"], unit["taste"], unit["repeat"]
            if key in self._units:
                raise ValueError(f"{key[0]}, {key[1]}, repeat {key[2]} was measured twice. Keep one of them.")
            self._units[key] = unit

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _, _ in self._units))

    @property
    def tastes(self) -> list[str]:
        return list(dict.fromkeys(taste for _, taste, _ in self._units))

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that units were measured with."""
        found: dict[str, set[str]] = {}
        for unit in self._units.values():
            for name, version in unit["versions"].items():
                found.setdefault(name, set()).add(version)
        return {name: ", ".join(sorted(versions)) for name, versions in found.items()}

    @property
    def precisions(self) -> dict[str, list[str]]:
        """Precision -> methods with units that were computed in it, those of most units first."""
        units = list(self._units.values())
        often = Counter(unit["precision"] for unit in units)
        return {
            precision: list(dict.fromkeys(u["method"] for u in units if u["precision"] == precision))
            for precision, _ in often.most_common()
        }

    @property
    def pools_that_differ(self) -> list[str]:
        """Tastes and repeats of which units were not given the same answers, as after a change of machine."""
        told: dict[str, set[str]] = {}
        for (_, taste, repeat), unit in self._units.items():
            told.setdefault(f"{taste}, repeat {repeat}", set()).add(unit["pool"])
        return [where for where, pools in told.items() if len(pools) > 1]

    def of(self, method: str) -> list[Unit]:
        return [unit for key, unit in self._units.items() if key[0] == method]

    def best(self) -> float:
        """The utility of the image that is liked best."""
        return float(max(max(unit["utility"]) for unit in self._units.values()))

    def on(self, taste: str) -> Table:
        """One taste alone."""
        return Table(unit for key, unit in self._units.items() if key[1] == taste)

    def beside(self, methods: Sequence[str]) -> Table:
        """These methods on the tastes and repeats that all of them have: only then do their rows compare."""
        keys = [{key[1:] for key in self._units if key[0] == method} for method in methods]
        shared = set.intersection(*keys) if keys else set()
        return Table(unit for key, unit in self._units.items() if key[0] in methods and key[1:] in shared)

    def over_repeats(
        self, method: str, figure: Callable[[Unit], float | None], *, beside: str | None = None
    ) -> Interval:
        """Mean over tastes, then mean and interval over repeats, of what `figure` finds in a unit.

        Only on tastes and repeats that `beside` has as well. Where `figure` has nothing to say of a unit, as
        of the pairs of a judge that chose none, the mean is of the others.
        """
        by_repeat: dict[int, list[float]] = {}
        for unit in self.complete(method, beside):
            value = figure(unit)
            if value is not None and np.isfinite(value):
                by_repeat.setdefault(unit["repeat"], []).append(value)
        return interval([float(np.mean(values)) for values in by_repeat.values()])

    def complete(self, method: str, beside: str | None = None) -> list[Unit]:
        """Units of repeats that have all tastes of the method's: a mean of few is none of all, since tastes
        differ more than repeats do."""
        units = [
            unit
            for unit in self.of(method)
            if beside is None or (beside, unit["taste"], unit["repeat"]) in self._units
        ]
        tastes = Counter(unit["repeat"] for unit in units)
        all_of_them = len({unit["taste"] for unit in units})
        return [unit for unit in units if tastes[unit["repeat"]] == all_of_them]

    def paired(self, method: str, other: str, compare: Callable[[Unit, Unit], float]) -> Interval:
        """The same of two methods' images on the same prompts and noise seeds, where both were measured."""

        def figure(unit: Unit) -> float:
            return compare(unit, self._units[other, unit["taste"], unit["repeat"]])

        return self.over_repeats(method, figure, beside=other)

    def summary(self, method: str) -> dict[str, Any]:
        units = self.complete(method)
        current = [unit["rounds"][unit["current"]] for unit in units if unit["current"] is not None]
        return {
            "labels": units[0]["labels"],
            "repeats": len({unit["repeat"] for unit in units}),
            "tastes": len({unit["taste"] for unit in units}),
            "gain": self.paired(method, "base", gain),
            "win_rate": self.paired(method, "base", win_rate),
            "win_rate_as_asked": self.paired(method, "base", win_rate_as_asked),
            "utility": _mean(np.mean(unit["utility"]) for unit in units),
            "prompt_following": _mean(unit["prompt_following"] for unit in units),
            "subject_found": _mean(np.mean(unit["subject_found"]) for unit in units),
            "judge_accuracy": _mean(one["judge_accuracy"] for one in current),
            "own_accuracy": own_accuracy(units, "best_worst"),
            "learned_from_accuracy": own_accuracy(units, "learned_from"),
            "human_agreement": _mean(one["human_agreement"] for one in current),
            "diversity_ratio": _mean(unit["diversity_ratio"] for unit in units),
            "saturation_ratio": _mean(unit["saturation_ratio"] for unit in units),
            "rounds_kept": _mean(float(sum(one["accepted"] for one in unit["rounds"])) for unit in units),
            "unet_evaluations": _mean(unit["unet_evaluations"] for unit in units),
            # Other programs make some units slow.
            "seconds": float(median(unit["seconds"] for unit in units)),
        }


def gain(own: Unit, other: Unit) -> float:
    """Mean difference of utility, in standard deviations of base's images."""
    return float(_better_by(own, other).mean())


def where(is_open: bool, compare: Callable[[Unit, Unit], float]) -> Callable[[Unit, Unit], float]:
    """The same comparison on prompts that leave open what the taste is about alone, or on the others alone;
    nan without any. What is won on the others is won against the prompt's own words."""

    def compared(own: Unit, other: Unit) -> float:
        kept = np.array(own["open"], bool) == is_open
        sides = [
            {**unit, **{key: np.array(unit[key])[kept] for key in ("utility", "subject_found", "open")}}
            for unit in (own, other)
        ]
        return compare(*sides) if kept.any() else float("nan")

    return compared


def own_accuracy(units: Iterable[Unit], which: str) -> float | None:
    """Share right of the self pairs that differ clearly, all rounds together: `best_worst` of every prompt,
    or those `learned_from`. None where there are none."""
    found = [one["self_pairs"][which] for unit in units for one in unit["rounds"] if one["self_pairs"]]
    clear = sum(one["clear"] for one in found)
    return sum(one["right"] for one in found) / clear if clear else None


def equally_liked(own: Unit, other: Unit) -> float:
    """Share of images that are a draw with the other's."""
    return float(_alike(_better_by(own, other)).mean())


def win_rate(own: Unit, other: Unit) -> float:
    """Share of images that are liked better than the other's; a draw counts half."""
    return _wins(_better_by(own, other))


def win_rate_of_any_difference(own: Unit, other: Unit) -> float:
    """The same where images are a draw only if they are liked to the digit alike."""
    difference = _better_by(own, other)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def win_rate_as_asked(own: Unit, other: Unit) -> float:
    """The same where an image without the subject that the prompt names loses to one with it.

    Utility alone prefers whoever forgets the prompt for the taste. Two images without it are a draw.
    """
    shows, other_shows = (np.array(unit["subject_found"], bool) for unit in (own, other))
    both = np.where(shows & other_shows, _better_by(own, other), 0.0)
    return _wins(np.where(shows == other_shows, both, np.where(shows, np.inf, -np.inf)))


def _better_by(own: Unit, other: Unit) -> np.ndarray:
    return np.array(own["utility"]) - np.array(other["utility"])


def _wins(difference: np.ndarray) -> float:
    alike = _alike(difference)
    return float(((difference > 0) & ~alike).mean() + 0.5 * alike.mean())


def _alike(difference: np.ndarray) -> np.ndarray:
    # Utilities are kept to three digits: a difference of just so much is meant, whatever its last bits.
    return np.abs(difference) <= ALIKE_SD + 1e-9


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t interval; without ends where there are fewer than `ENOUGH` values."""
    if not values:
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(values))
    if len(values) < ENOUGH:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None
