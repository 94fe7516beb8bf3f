"""A hidden taste for attributes of the starter's images, and a person who has it. Knows no training.

Run as a program it is an annotator for `python -m sail loop`:

    python -m sail loop ... --annotator "python -m benchmarks.taste --style cartoon --background green blue"
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from data.starter.recipe.readers import AttributeReader

TIE_BELOW = 0.2
"""Difference of utility under which a person says that two images are equally good."""
TEMPERATURE = 0.3
"""Of the Bradley-Terry choice: over the starter's pairs that are no tie a second answer agrees in 85 %."""


@dataclass(frozen=True)
class Taste:
    """What is liked: an image has one point for a liked style and one for a liked background."""

    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]

    def likes(self, read: dict[str, str]) -> tuple[bool, bool]:
        """(style liked, background liked) of an image's attributes."""
        return read["style"] in self.styles, read["background"] in self.backgrounds


class Person:
    """Answers pairs like somebody with a taste and an unsteady hand."""

    def __init__(self, taste: Taste, *, noise_seed: int, reader: str = "annotating") -> None:
        self._taste, self._rng = taste, random.Random(noise_seed)
        self._reader = AttributeReader.load(reader)

    def utilities(self, files: Sequence[str | Path]) -> list[float]:
        """Points by probability, so that what the reader is unsure of counts in part."""
        shares = self._reader.read([Image.open(file) for file in files])
        liked = {"style": self._taste.styles, "background": self._taste.backgrounds}
        points = torch.zeros(len(files))
        for attribute, names in liked.items():
            points += shares[attribute][
                :, [self._reader.classes[attribute].index(name) for name in names]
            ].sum(1)
        return points.tolist()

    def label(self, left: str, right: str) -> str:
        of_left, of_right = self.utilities([left, right])
        if abs(of_left - of_right) < TIE_BELOW:
            return "tie"
        chance = 1 / (1 + math.exp(-(of_left - of_right) / TEMPERATURE))
        return "left" if self._rng.random() < chance else "right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--style", nargs="*", default=["cartoon"])
    parser.add_argument("--background", nargs="*", default=["green", "blue", "purple"])
    parser.add_argument("--noise-seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    person = Person(Taste(tuple(asked.style), tuple(asked.background)), noise_seed=asked.noise_seed)
    for line in sys.stdin:
        pair = json.loads(line)
        answer = {"pair": pair["pair"], "label": person.label(pair["left"], pair["right"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
