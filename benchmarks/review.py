"""How long does a review of self pairs take, and what stays wrong? By exception against one by one.

    python -m benchmarks.review --pairs 200
    python -m benchmarks.review --run RUN_DIR --style cartoon --background green blue purple

Assumed, not measured: a person needs 1.5 s to decide a pair and 0.3 s to glance at a thumbnail, is right
about 95 % of the pairs that they decide, and notices half of the wrong ones that they glance at. The judge is
right by its certainty as the arguments say, or as a propose run's own pairs and a hidden taste have it.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np

from annotator.audit import certainty, sample, typical_margin
from sail.runfolder import RunFolder

Pairs = list[tuple[float, bool]]
"""Margin beside a typical one of its run, and whether the judge is right."""
CLARITY = {"sure": 1.5, "fairly sure": 0.75, "a guess": 0.25}
"""What an assumed pair of that certainty has."""


def assumed(asked: argparse.Namespace, rng: random.Random) -> Pairs:
    """Pairs of a judge whose accuracy is known for each degree of certainty."""
    words = rng.choices(list(CLARITY), asked.shares, k=asked.pairs)
    accuracy = dict(zip(CLARITY, asked.accuracies, strict=True))
    return [(CLARITY[word], rng.random() < accuracy[word]) for word in words]


def proposed(asked: argparse.Namespace) -> Pairs:
    """A propose run's own pairs, those left out that are alike to somebody with that taste."""
    from PIL import Image

    from benchmarks.taste import TIE_BELOW, Taste
    from data.starter.recipe.readers import AttributeReader

    folder = RunFolder(asked.run)
    taste = Taste({"style": tuple(asked.style), "background": tuple(asked.background)})
    images = {
        (one.prompt_index, candidate.index): folder.path / candidate.image
        for one in folder.candidate_sets()
        for candidate in one.candidates
    }
    pairs = folder.self_pairs()

    def liked(side: str) -> np.ndarray:
        files = [images[pair.prompt_index, getattr(pair, side)] for pair in pairs]
        return taste.utilities([Image.open(file) for file in files], reader).numpy()

    reader = AttributeReader.load("measuring")
    gaps = liked("winner") - liked("loser")
    typical = typical_margin([pair.margin for pair in pairs])
    return [
        (pair.margin / typical, bool(gap > 0))
        for pair, gap in zip(pairs, gaps, strict=True)
        if abs(gap) >= TIE_BELOW
    ]


def one_by_one(pairs: Pairs, asked: argparse.Namespace, rng: random.Random) -> tuple[float, float]:
    """(minutes, share of pairs that stay wrong) where every pair is decided."""
    wrong = sum(rng.random() >= asked.person for _ in pairs)
    return asked.decide_s * len(pairs) / 60, wrong / len(pairs)


def by_exception(pairs: Pairs, asked: argparse.Namespace, rng: random.Random) -> tuple[float, float]:
    """The same for the audit sample one by one, the clear pairs at a glance, the rest one by one."""
    ids = {str(number) for number in range(len(pairs))}
    audited = set(sample(ids))
    seconds, wrong = 0.0, 0
    for number, (clarity, right) in enumerate(pairs):
        at_a_glance = str(number) not in audited and clarity >= asked.over
        seconds += asked.glance_s if at_a_glance else 0.0
        if at_a_glance and (right or rng.random() >= asked.noticed):
            wrong += not right
            continue
        seconds += asked.decide_s
        wrong += rng.random() >= asked.person
    return seconds / 60, wrong / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--shares", type=float, nargs=3, default=[0.5, 0.25, 0.25], help=", ".join(CLARITY))
    parser.add_argument("--accuracies", type=float, nargs=3, default=[0.95, 0.8, 0.6])
    parser.add_argument(
        "--over", type=float, default=1.0, help="typical margins from which pairs are glanced at"
    )
    parser.add_argument("--decide-s", type=float, default=1.5)
    parser.add_argument("--glance-s", type=float, default=0.3)
    parser.add_argument(
        "--person", type=float, default=0.95, help="share of decided pairs they are right about"
    )
    parser.add_argument("--noticed", type=float, default=0.5, help="share of wrong pairs seen at a glance")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--run", type=Path, help="a propose run's folder, instead of an assumed judge")
    parser.add_argument("--style", nargs="*", default=["cartoon"])
    parser.add_argument("--background", nargs="*", default=["green", "blue", "purple"])
    asked = parser.parse_args()
    rng = random.Random(0)
    own = proposed(asked) if asked.run else None
    repeats = [own or assumed(asked, rng) for _ in range(asked.repeats)]
    for word in CLARITY:
        rights = [right for pairs in repeats for clarity, right in pairs if certainty(clarity) == word]
        if rights:
            print(
                json.dumps({"certainty": word, "pairs": len(rights) / len(repeats), "right": np.mean(rights)})
            )
    wrong = np.mean([not right for pairs in repeats for _, right in pairs])
    print(json.dumps({"way": "not at all", "minutes": 0.0, "left_wrong": round(float(wrong), 3)}))
    for way in (one_by_one, by_exception):
        minutes, wrong = np.mean([way(pairs, asked, rng) for pairs in repeats], axis=0)
        line = {"way": way.__name__.replace("_", " "), "minutes": round(minutes, 2)}
        print(json.dumps({**line, "left_wrong": round(float(wrong), 3)}))


if __name__ == "__main__":
    main()
