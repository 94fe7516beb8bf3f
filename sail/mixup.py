"""Seed pairs and self pairs -> batches of a fixed composition. Knows indices, never tensors."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from sail.records import Source


@dataclass(frozen=True, kw_only=True)
class MixupPlan:
    """What a self fraction means before anything is trained."""

    self_fraction: float
    """As it was asked for, also where one side is missing."""
    human_pairs: int
    """Unique human pairs to learn from."""
    self_pairs: int
    human_draws: int
    """How often a human pair is drawn, over the whole run."""
    self_draws: int

    @property
    def human_passes(self) -> float:
        return self.human_draws / self.human_pairs if self.human_pairs else 0.0

    @property
    def self_passes(self) -> float:
        return self.self_draws / self.self_pairs if self.self_pairs else 0.0


def effective_fraction(self_fraction: float, *, human_pairs: int, self_pairs: int) -> float:
    """The share that can be had: 0 without self pairs, 1 without human pairs. ValueError without either."""
    if human_pairs + self_pairs == 0:
        raise ValueError("There is no pair to train on. Label some pairs first.")
    if self_pairs == 0:
        return 0.0
    return 1.0 if human_pairs == 0 else self_fraction


def suited_fraction(
    self_fraction: float, most_times: float | None, *, human_pairs: int, self_pairs: int
) -> float:
    """At most `self_fraction`, and so much less that no self pair is drawn more than `most_times` as often as
    a human pair: a few pairs in many draws are learned by heart.

    Without mixup (1), or with one side alone, it is as asked.
    """
    if most_times is None or self_fraction == 1 or not human_pairs or not self_pairs:
        return self_fraction
    return min(self_fraction, most_times * self_pairs / (most_times * self_pairs + human_pairs))


def self_draws_among(first: int, self_fraction: float) -> int:
    """Of the first n pairs drawn, how many are self pairs: floor(n * alpha + 1/2)."""
    return math.floor(first * self_fraction + 0.5)


def plan(
    self_fraction: float, *, human_pairs: int, self_pairs: int, steps: int, batch_pairs: int
) -> MixupPlan:
    """Draws and passes over each side for `steps` batches of `batch_pairs`. ValueError without pairs."""
    fraction = effective_fraction(self_fraction, human_pairs=human_pairs, self_pairs=self_pairs)
    self_draws = self_draws_among(steps * batch_pairs, fraction)
    return MixupPlan(
        self_fraction=self_fraction,
        human_pairs=human_pairs,
        self_pairs=self_pairs,
        human_draws=steps * batch_pairs - self_draws,
        self_draws=self_draws,
    )


class Mixer:
    """The n-th pair drawn, as a pure function of n: a resumed run needs no state.

    The composition holds over the stream of pairs, so batches smaller than 1 / alpha mix as well.
    Each side is reshuffled at every pass over it. ValueError without pairs.
    """

    def __init__(self, *, human_pairs: int, self_pairs: int, self_fraction: float, noise_seed: int) -> None:
        self._count: dict[Source, int] = {"human": human_pairs, "self": self_pairs}
        self._fraction = effective_fraction(self_fraction, human_pairs=human_pairs, self_pairs=self_pairs)
        self._noise_seed = noise_seed
        self._orders: dict[tuple[Source, int], list[int]] = {}

    def draw(self, n: int) -> tuple[Source, int]:
        """Side of the n-th pair (from 0) and its index within that side."""
        side, turn, position = self._place(n)
        return side, self._order(side, turn)[position]

    def turn(self, n: int) -> int:
        """Passes over its side that were done before the n-th pair: how often that pair was drawn already."""
        return self._place(n)[1]

    def _place(self, n: int) -> tuple[Source, int, int]:
        """Side, pass over it, and position within the pass."""
        before = self_draws_among(n, self._fraction)
        is_self = self_draws_among(n + 1, self._fraction) > before
        side: Source = "self" if is_self else "human"
        turn, position = divmod(before if is_self else n - before, self._count[side])
        return side, turn, position

    def _order(self, side: Source, turn: int) -> list[int]:
        if (side, turn) not in self._orders:
            order = list(range(self._count[side]))
            random.Random(f"{self._noise_seed}/{side}/{turn}").shuffle(order)
            self._orders = {key: value for key, value in self._orders.items() if key[0] != side}
            self._orders[side, turn] = order
        return self._orders[side, turn]
