"""Hidden tastes for the starter's images, and a simulated person who has one. Knows no training.

Run as a program it is an annotator for `python -m sail loop`:

    python -m sail loop ... --annotator "python -m benchmarks.taste --style cartoon --background green blue"
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.starter.recipe.readers import AttributeReader

TIE_BELOW = 0.2
"""Difference of points under which a person says that two images are equally good."""
TEMPERATURE = 0.3
"""Of the Bradley-Terry choice: over the starter's pairs that are no tie a second answer agrees in 85 %."""


@dataclass(frozen=True)
class Taste:
    """What is liked: an image has one point for each attribute that is as liked."""

    liked: Mapping[str, tuple[str, ...]]
    """Attribute -> the classes that are liked."""

    def likes(self, read: Mapping[str, str]) -> dict[str, bool]:
        """Attribute -> whether an image with these attributes is as liked."""
        return {attribute: read[attribute] in names for attribute, names in self.liked.items()}

    def utilities(self, images: Sequence[Image.Image], reader: AttributeReader) -> Tensor:
        """Points by probability, so that what the reader is unsure of counts in part: (N,)."""
        shares = reader.read(images)
        points = torch.zeros(len(images))
        for attribute, names in self.liked.items():
            points += shares[attribute][:, [reader.classes[attribute].index(name) for name in names]].sum(1)
        return points


@dataclass(frozen=True)
class PictureTaste:
    """A liking for something that no prompt names: a statistic of the pixels."""

    statistic: Callable[[np.ndarray], np.ndarray]
    """(N, H, W, 3) in 0..1 -> (N,), more is liked better."""

    def utilities(self, images: Sequence[Image.Image], reader: AttributeReader) -> Tensor:
        """The statistic of each image: (N,). Needs no reader; it is a taste like any other."""
        pixels_NHW3 = np.stack([np.asarray(image.convert("RGB"), np.float32) / 255 for image in images])
        return torch.from_numpy(self.statistic(pixels_NHW3))


def colourfulness(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Hasler and Suesstrunk (2003), eq. 12: spread and strength of the opponent colours."""
    red, green, blue = np.moveaxis(pixels_NHW3, -1, 0)
    opponents = (red - green, 0.5 * (red + green) - blue)
    spread = sum(one.std((1, 2)) ** 2 for one in opponents) ** 0.5
    strength = sum(one.mean((1, 2)) ** 2 for one in opponents) ** 0.5
    return spread + 0.3 * strength


def light(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Mean luma (Rec. 601)."""
    return (pixels_NHW3 @ np.array([0.299, 0.587, 0.114], np.float32)).mean((1, 2))


def smoothness(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Minus the mean step from one pixel to the next."""
    across = np.abs(np.diff(pixels_NHW3, axis=2)).mean((1, 2, 3))
    down = np.abs(np.diff(pixels_NHW3, axis=1)).mean((1, 2, 3))
    return -(across + down)


def symmetry(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Minus the mean difference from the image in a mirror."""
    return -np.abs(pixels_NHW3 - pixels_NHW3[:, :, ::-1]).mean((1, 2, 3))


def repeated_agreement(differences: np.ndarray, temperature: float) -> float:
    """How often a person who is asked twice says the same, over pairs with these differences of points."""
    chance = 1 / (1 + np.exp(-np.asarray(differences) / temperature))
    return float((chance**2 + (1 - chance) ** 2).mean())


class Person:
    """Answers pairs like somebody with a taste and an unsteady hand (Bradley-Terry)."""

    def __init__(
        self,
        noise_seed: int | str,
        *,
        temperature: float = TEMPERATURE,
        tie_below: float = TIE_BELOW,
        tie_spread: float = 0.0,
    ) -> None:
        """`tie_spread`: over so many points round `tie_below` a tie goes from likely to unlikely (logistic);
        0 is a sharp edge."""
        self._rng = random.Random(noise_seed)
        self._temperature, self._tie_below, self._tie_spread = temperature, tie_below, tie_spread

    def choose(self, left: float, right: float) -> Literal["left", "right", "tie"]:
        """Between two images with these points."""
        above = abs(left - right) - self._tie_below
        if not self._tie_spread and above < 0:
            return "tie"
        winner: Literal["left", "right"] = (
            "left" if self._rng.random() < _logistic((left - right) / self._temperature) else "right"
        )
        # After the winner, who is then the same with and without a sharp edge.
        is_tie = self._tie_spread and self._rng.random() < _logistic(-above / self._tie_spread)
        return "tie" if is_tie else winner


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--style", nargs="*", default=["cartoon"])
    parser.add_argument("--background", nargs="*", default=["green", "blue", "purple"])
    parser.add_argument("--noise-seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    liked = {"style": tuple(asked.style), "background": tuple(asked.background)}
    reader, person = AttributeReader.load("annotating"), Person(asked.noise_seed)
    for attribute, names in liked.items():
        if unknown := set(names) - set(reader.classes[attribute]):
            known = ", ".join(reader.classes[attribute])
            parser.error(f"There is no {attribute} {unknown.pop()!r}. There are {known}.")
    taste = Taste(liked)
    for line in sys.stdin:
        pair = json.loads(line)
        left, right = taste.utilities([Image.open(pair[side]) for side in ("left", "right")], reader).tolist()
        print(json.dumps({"pair": pair["pair"], "label": person.choose(left, right)}), flush=True)


if __name__ == "__main__":
    main()
