"""One unit of the benchmark: label, train, draw held-out prompts, read. Knows no table.

N images, one a held-out prompt.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.alignment.methods import METHODS, Changes, Method, settings_of
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
from sail import backbones
from sail.annotate import ShownPair
from sail.config import LoopSettings, ModelRef, Scoring
from sail.loop import Rounds, human_pairs
from sail.policy import Policy
from sail.proposing import load_latents
from sail.reward import draw_weights, gains
from sail.rounds import Round, parse_prompts
from sail.runfolder import RunFolder
from sail.sampling import draw

STARTER = ModelRef(source="data/starter")
PROMPTS = Path("data/prompts")
SIDES = ("left", "right")
AGREEMENT = 0.85
"""How often a person who is asked again says the same."""
TIE_BELOW_SD = 0.3
"""Differences of utility under this, in standard deviations of the base model's images, are ties."""

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
}
TUNING = ("light", "smoothness", "flat or dark")
TABLE = tuple(name for name in TASTES if name not in TUNING)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the benchmark is: the same for every method."""

    steps: int = 75
    """Optimiser steps a round; methods with one training have those of all rounds."""
    prompts_per_round: int = 32
    held_out_prompts: int = 160
    prompts_after_a_round: int = 32
    judged_pairs: int = 64
    """Pairs of the pool with a clear winner that nobody labelled, to measure judges on."""
    pool_pairs: int = 1600
    """Pairs that may be labelled; so many that there are `judged_pairs` besides are drawn."""

    def changes(self, rounds: int) -> Changes:
        return {
            "prompts_per_round": self.prompts_per_round,
            "optimisation.steps": self.steps * rounds,
            "monitor_prompts": 8,
        }


@dataclass(frozen=True)
class Pool:
    """Pairs of the base model, and what two readers see in them."""

    pairs: list[ShownPair]
    annotated_P2: np.ndarray
    """Utility of left and right for the simulated person."""
    measured_P2: np.ndarray
    """The same as the other reader sees it."""
    sd: float
    """Standard deviation of the utility over the base model's images, as the person sees it."""
    temperature: float


def _policy(at: Round | None) -> Policy:
    """The starter, with the adapter of a round if there is one."""
    policy = Policy(backbones.load(STARTER))
    if at is not None:
        policy.load("policy", Path(at.adapter))
    return policy


class Study:
    """One repeat: its pool of pairs, its held-out images, its units."""

    def __init__(self, out: Path, repeat: int, size: Size) -> None:
        self._out, self._repeat, self._size = out, repeat, size
        prompts = parse_prompts((PROMPTS / "starter.txt").read_text())
        random.Random(f"prompts/{repeat}").shuffle(prompts)
        self._prompts = prompts
        held_out = parse_prompts((PROMPTS / "heldout.txt").read_text())
        self._held_out = random.Random(f"held out/{repeat}").sample(held_out, size.held_out_prompts)
        self._pools: dict[str, Pool] = {}

    def unit(self, taste: str, name: str) -> dict[str, Any]:
        """Train and measure one method; what the results file keeps of it."""
        began = time.monotonic()
        method, pool = METHODS[name], self._pool(taste)
        rounds_in_all = 4 if method.train.__name__ == "once" else 1
        settings = settings_of(method, STARTER, self._size.changes(rounds_in_all))
        settings = settings.model_copy(update={"noise_seed": 10_000 * (self._repeat + 1)})
        folder = self._out / f"{self._repeat}-{taste}-{name}".replace(" ", "_")
        rounds = Rounds(folder, STARTER, settings, self._prompts)
        rounds.take_prompts(method.labels)  # Those that the labelled pairs were drawn for.
        pairs = human_pairs(pool.pairs[: method.labels], self._labels(taste, method), settings)
        method.train(rounds, pairs)
        images = self._images(settings, _policy(rounds.current))
        found = {
            "taste": taste,
            "method": name,
            "repeat": self._repeat,
            "labels": method.labels,
            "winners": len(pairs),
            "agreement": repeated_agreement(_clear(pool), pool.temperature),
            **self._read(taste, images, pool.sd),
            "current": rounds.current.round if rounds.current else None,
            "rounds": [self._round(taste, settings, pool, rounds, one, folder) for one in rounds.done],
            "unet_evaluations": evaluations(settings, rounds.done),
            "seconds": round(time.monotonic() - began, 1),
        }
        shutil.rmtree(folder, ignore_errors=True)
        return found

    # The pool of labelled pairs

    def draw_pool(self) -> list[ShownPair]:
        """The pairs that people are shown, from the base model; drawn once for all methods."""
        settings = settings_of(METHODS["base"], STARTER, self._size.changes(1))
        settings = settings.model_copy(update={"noise_seed": 10_000 * (self._repeat + 1)})
        folder = self._out / f"{self._repeat}-pool-{self._size.pool_pairs}"
        return Rounds(folder, STARTER, settings, self._prompts).draw_seed(
            self._size.pool_pairs + 3 * self._size.judged_pairs
        )

    def _pool(self, taste: str) -> Pool:
        if taste not in self._pools:
            pairs = self.draw_pool()
            annotated, measured = (
                np.stack(
                    [_utilities(taste, [getattr(pair, side) for pair in pairs], reader) for side in SIDES], 1
                )
                for reader in ("annotating", "measuring")
            )
            sd = float(annotated.std())
            differences = annotated[:, 0] - annotated[:, 1]
            clear = differences[np.abs(differences) >= TIE_BELOW_SD * sd]
            self._pools[taste] = Pool(pairs, annotated, measured, sd, _temperature(clear))
        return self._pools[taste]

    def _labels(self, taste: str, method: Method) -> dict[str, Any]:
        pool, other = self._pool(taste), self._pool(_another(taste)) if method.second_taste else None
        person, chance = _person(pool, self._repeat), random.Random(f"faults/{self._repeat}")
        second = _person(other, self._repeat) if other else None
        labels: dict[str, Any] = {}
        for index, pair in enumerate(pool.pairs[: method.labels]):
            if other and second and index % 2:
                label = second.choose(*other.annotated_P2[index].tolist())
            else:
                label = person.choose(*pool.annotated_P2[index].tolist())
            # Drawn whether they are needed or not, so that methods differ in their own fault alone.
            flip, lean = chance.random() < method.flipped, chance.random() < method.left_bias
            if flip and label in ("left", "right"):
                label = "right" if label == "left" else "left"
            labels[pair.id] = "left" if lean else label
        return labels

    # What came of it

    def _images(self, settings: LoopSettings, policy: Policy, count: int | None = None) -> list[Image.Image]:
        """One for each of the (first `count`) held-out prompts."""
        drawn = draw(
            policy,
            self._held_out[:count],
            per_prompt=1,
            noise_seed=7_000_000 + self._repeat,
            sampling=settings.sampling,
        )
        latents = torch.cat([one.latents_NCHW for one in drawn]).to(policy.backbone.device)
        decoded = torch.cat([policy.backbone.decode(part) for part in latents.split(settings.sampling.chunk)])
        return [Image.fromarray(image_HW3.numpy()) for image_HW3 in decoded]

    def _read(self, taste: str, images: Sequence[Image.Image], sd: float) -> dict[str, Any]:
        """Utility in standard deviations of base, image by image, and the share of named attributes found."""
        reader = _reader("measuring")
        utility_N = TASTES[taste].utilities(images, reader).numpy() / sd
        named, reads = named_attributes(self._held_out), reader.name(images)
        hits = [
            read[attribute] == value
            for own, read in zip(named, reads, strict=True)
            for attribute, value in own.items()
        ]
        subjects = [read["subject"] == own["subject"] for own, read in zip(named, reads, strict=True)]
        return {
            "utility": [round(value, 3) for value in utility_N.tolist()],
            "prompt_following": float(np.mean(hits)),
            "subject_found": float(np.mean(subjects)),
        }

    def _gain_so_far(self, taste: str, settings: LoopSettings, policy: Policy, sd: float) -> float:
        """Mean utility over base, in standard deviations, on some of the held-out prompts."""
        count = self._size.prompts_after_a_round
        images = [self._images(settings, one, count) for one in (policy, _policy(None))]
        own, base = (TASTES[taste].utilities(side, _reader("measuring")).mean() for side in images)
        return float(own - base) / sd

    def _round(
        self, taste: str, settings: LoopSettings, pool: Pool, rounds: Rounds, one: Round, folder: Path
    ) -> dict[str, Any]:
        """What its own gate measured, and what only we can know: is the judge right?"""
        policy = _policy(one)
        unseen = _clear_unseen(pool, self._size.judged_pairs)
        proposed = folder / f"{2 * one.round:04d}-propose"
        return {
            "round": one.round,
            "accepted": one.accepted,
            "gate_accuracy": one.judge_accuracy.value,
            "gate_pairs": one.judge_accuracy.n,
            "judge_accuracy": _right(policy, unseen, settings.scoring),
            "utility": self._gain_so_far(taste, settings, policy, pool.sd),
            "own_accuracy": own_accuracy(taste, RunFolder(proposed), pool.sd) if proposed.exists() else None,
            "diversity_ratio": one.diversity_ratio,
            "saturation_ratio": one.saturation_ratio,
            "winner_gain": one.winner_gain,
            "loser_gain": one.loser_gain,
        }


def own_accuracy(taste: str, folder: RunFolder, sd: float) -> dict[str, float]:
    """Of self pairs: the share whose winner is liked better, the mean difference, and the best possible."""
    found = {one.prompt_index: one for one in folder.candidate_sets()}
    sets = {
        index: _utilities(taste, [folder.path / own.image for own in one.candidates], "measuring") / sd
        for index, one in found.items()
    }
    gaps = np.array(
        [
            sets[pair.prompt_index][pair.winner] - sets[pair.prompt_index][pair.loser]
            for pair in folder.self_pairs()
        ]
    )
    clear = np.abs(gaps) >= TIE_BELOW_SD
    return {
        "right": float((gaps[clear] > 0).mean()) if clear.any() else float("nan"),
        "clear": int(clear.sum()),
        "gap": float(gaps.mean()),
        "best_gap": float(np.mean([own.max() - own.min() for own in sets.values()])),
    }


def evaluations(settings: LoopSettings, rounds: Sequence[Round]) -> int:
    """Denoiser evaluations of images, a backward pass counted as two forward ones: training and proposing.

    What everybody pays alike (the images to label, the held-out ones) is left out.
    """
    steps = settings.optimisation.steps * settings.optimisation.batch_pairs * 2 * (1 + 3) * len(rounds)
    sampling = settings.sampling
    passes = sampling.steps * (2 if sampling.guidance > 1 else 1) + 2 * settings.scoring.draws
    proposed = sum(one.self_pairs > 0 for one in rounds) * settings.prompts_per_round
    return steps + proposed * settings.num_candidates * passes


def _clear(pool: Pool) -> np.ndarray:
    differences = pool.annotated_P2[:, 0] - pool.annotated_P2[:, 1]
    return differences[np.abs(differences) >= TIE_BELOW_SD * pool.sd]


def _clear_unseen(pool: Pool, count: int) -> list[tuple[str, torch.Tensor]]:
    """Pairs from the end of the pool, which nobody labels, with the truly better image first."""
    found = []
    for pair, (left, right) in zip(reversed(pool.pairs), pool.measured_P2[::-1].tolist(), strict=True):
        if abs(left - right) < TIE_BELOW_SD * pool.sd:
            continue
        sides = (pair.left_latents, pair.right_latents)
        winner, loser = sides if left > right else sides[::-1]
        latents = [load_latents(Path(), ref.file, ref.row) for ref in (winner, loser)]
        found.append((pair.prompt, torch.stack(latents)))
        if len(found) == count:
            break
    return found


def _right(policy: Policy, pairs: Sequence[tuple[str, torch.Tensor]], scoring: Scoring) -> float:
    """Share of pairs (prompt, latents of the better and the worse) that the policy as a judge gets right."""
    gains_2K = [gains(policy, prompt, latents, scoring, reference="base") for prompt, latents in pairs]
    weight_K = draw_weights(gains_2K, scoring)
    return float(np.mean([float((own[0] - own[1]) @ weight_K.float() > 0) for own in gains_2K]))


def _person(pool: Pool, repeat: int) -> Person:
    return Person(repeat, temperature=pool.temperature, tie_below=TIE_BELOW_SD * pool.sd)


def _another(taste: str) -> str:
    """Somebody else's taste: the next of the table."""
    names = list(TASTES)
    return names[(names.index(taste) + 1) % len(names)]


def _temperature(differences: np.ndarray) -> float:
    """At which a repeated answer agrees in AGREEMENT of these pairs; it falls with the temperature."""
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        if repeated_agreement(differences, middle) > AGREEMENT:
            low = middle
        else:
            high = middle
    return low


def _utilities(taste: str, files: Sequence[Path], reader: str) -> np.ndarray:
    images = [Image.open(file) for file in files]
    return TASTES[taste].utilities(images, _reader(reader)).double().numpy()


@cache
def _reader(name: str) -> AttributeReader:
    return AttributeReader.load(name)
