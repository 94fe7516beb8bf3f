"""Tastes, the pairs that people are shown, and what they say. Knows no training.

P pairs, left and right.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.alignment.methods import Method
from benchmarks.taste import (
    Person,
    PictureTaste,
    Taste,
    colourfulness,
    light,
    repeated_agreement,
    smoothness,
    symmetry,
)
from data.starter.recipe.evaluate import named_attributes
from data.starter.recipe.readers import AttributeReader
from sail.annotate import ShownPair
from sail.candidates import load_latents
from sail.records import LabelValue

AGREEMENT = 0.85
"""How often a person who is asked again says the same."""
TIE_BELOW_SD = 0.3
"""Differences of utility under this, in standard deviations of the base model's images, are ties."""

TIE_SPREAD = 0.5
"""Of who is unsure of ties, as a share of where they begin: of images that they like alike they say tie in
88 %."""

TASTES: dict[str, Taste | PictureTaste] = {
    "style": Taste({"style": ("cartoon",)}),
    "background": Taste({"background": ("green", "blue", "purple")}),
    "size": Taste({"size": ("big",)}),
    "style and background": Taste({"style": ("3d",), "background": ("red", "orange", "yellow")}),
    "symmetry": PictureTaste(symmetry),
    "colourfulness": PictureTaste(colourfulness),
    # Outside the table, for tuning.
    "light": PictureTaste(light),
    "smoothness": PictureTaste(smoothness),
    "flat or dark": Taste({"style": ("flat",), "background": ("black", "blue")}),
    "small": Taste({"size": ("small",)}),
}
TUNING = ("light", "smoothness", "flat or dark", "small")
TABLE = tuple(name for name in TASTES if name not in TUNING)


class Pool:
    """Pairs of the base model under one taste, as a simulated person and as the other reader sees them."""

    def __init__(self, taste: str, pairs: list[ShownPair], *, to_label: int) -> None:
        self.pairs = pairs
        self._to_label = to_label
        """So many of the first may be labelled; the others are for measuring judges."""
        self._taste = taste
        self._annotated_P2, self._measured_P2 = (
            np.stack([utilities(taste, [pair.left for pair in pairs], reader),
                      utilities(taste, [pair.right for pair in pairs], reader)], axis=1)
            for reader in ("annotating", "measuring")
        )  # fmt: skip
        self.sd = float(self._annotated_P2.std())
        """Standard deviation of the utility over the base model's images, as the person sees it."""
        differences_P = self._annotated_P2[:, 0] - self._annotated_P2[:, 1]
        clear = differences_P[np.abs(differences_P) >= TIE_BELOW_SD * self.sd]
        self._temperature = temperature_for(clear)
        self.agreement = repeated_agreement(clear, self._temperature)

    def labels(
        self,
        method: Method,
        repeat: int,
        *,
        beside: Pool | None = None,
        asked: Sequence[int] | None = None,
    ) -> tuple[list[ShownPair], dict[str, LabelValue]]:
        """The pairs that a method's person is shown, by default the first, and what they say; every other one
        as in `beside`.

        Faults are counted and not drawn by lot: of 50 labels a chance of one in five turns round 4 to 16. Of
        two shares of one fault the smaller's labels are among the larger's.
        """
        if method.labels > self._to_label:
            raise ValueError(f"{method.labels} labels are asked of a pool with {self._to_label} to label.")
        asked = range(method.labels) if asked is None else asked
        shown = [replace(self.pairs[index], ordinal=place) for place, index in enumerate(asked)]
        # Every tenth pair is held out for the judge: both people give half of those as well.
        said: dict[str, LabelValue] = {
            pair.id: (beside if beside and (place + place // 10) % 2 else self)._said(
                repeat, index, unsure=method.unsure_ties
            )
            for place, (index, pair) in enumerate(zip(asked, shown, strict=True))
        }
        with_a_winner = [pair for pair, label in said.items() if label != "tie"]
        for pair in self._at_fault("flipped", repeat, with_a_winner, method.flipped):
            said[pair] = "right" if said[pair] == "left" else "left"
        for pair in self._at_fault("left", repeat, list(said), method.left_bias):
            said[pair] = "left"
        return shown, said

    def _at_fault(self, fault: str, repeat: int, pairs: list[str], share: float) -> list[str]:
        """A share of the pairs, chosen at random."""
        random.Random(f"{fault}/{repeat}/{self._taste}").shuffle(pairs)
        return pairs[: round(share * len(pairs))]

    def unseen(self, count: int) -> list[tuple[str, torch.Tensor]]:
        """Clear pairs that nobody labels, at most `count`: prompt, latents of better and worse image."""
        found = []
        spare = slice(self._to_label, None)
        for pair, (left, right) in zip(self.pairs[spare], self._measured_P2[spare].tolist(), strict=True):
            if abs(left - right) < TIE_BELOW_SD * self.sd:
                continue
            prompt, latents_2CHW = latents_of(pair)
            found.append((prompt, latents_2CHW if left > right else latents_2CHW.flip(0)))
            if len(found) == count:
                break
        return found

    def told(self, repeat: int) -> str:
        """8 hex digits of what people say of every pair.

        Another machine draws the same pool with other last bits, for which a pair in hundreds becomes a tie.
        """
        said = [self._said(repeat, index) for index in range(len(self.pairs))]
        return hashlib.sha256(",".join(said).encode()).hexdigest()[:8]

    def choose(self, pair: str, left: Path, right: Path) -> LabelValue:
        """What the person says of two other images."""
        both = utilities(self._taste, [left, right], "annotating")
        return self._hand(pair).choose(*both.tolist())

    def _said(self, repeat: int, index: int, *, unsure: bool = False) -> LabelValue:
        hand = self._hand(f"{repeat}/{index}", unsure=unsure)
        return hand.choose(*self._annotated_P2[index].tolist())

    def _hand(self, pair: str, *, unsure: bool = False) -> Person:
        """One of its own for each pair: what is said of one hangs on no other."""
        tie_below = TIE_BELOW_SD * self.sd
        spread = TIE_SPREAD * tie_below if unsure else 0.0
        return Person(pair, temperature=self._temperature, tie_below=tie_below, tie_spread=spread)


def latents_of(pair: ShownPair) -> tuple[str, torch.Tensor]:
    """Its prompt, and the latents of its left and its right image."""
    sides = (pair.left_latents, pair.right_latents)
    return pair.prompt, torch.stack([load_latents(Path(), ref.file, ref.row) for ref in sides])


def leaves_open(taste: str, prompts: Sequence[str]) -> list[bool]:
    """Of each prompt, whether it names nothing that the taste is about."""
    own = TASTES[taste]
    about = set(own.liked) if isinstance(own, Taste) else set()
    return [not about & set(named) for named in named_attributes(prompts)]


def other_taste(taste: str) -> str:
    """Somebody else's: the next in the list."""
    names = list(TASTES)
    return names[(names.index(taste) + 1) % len(names)]


def temperature_for(differences: np.ndarray) -> float:
    """At which a repeated answer agrees in AGREEMENT of pairs with these differences of utility."""
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        if repeated_agreement(differences, middle) > AGREEMENT:
            low = middle
        else:
            high = middle
    return low


def utilities(taste: str, files: Sequence[Path], reader: str) -> np.ndarray:
    """(N,) in the taste's own unit."""
    images = [Image.open(file) for file in files]
    return np.asarray(TASTES[taste].utilities(images, load_reader(reader)).double())


@cache
def load_reader(name: str) -> AttributeReader:
    return AttributeReader.load(name)
