"""One unit of the benchmark: label, train, draw held-out prompts, read. Knows no table.

N images, one a held-out prompt.
"""

from __future__ import annotations

import hashlib
import platform
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from benchmarks.alignment.asking import asked_about, window
from benchmarks.alignment.checking import OtherRounds
from benchmarks.alignment.methods import (
    METHODS,
    SEED_ROUNDS,
    SELF_ROUNDS,
    Changes,
    Method,
    method_named,
    nothing,
    settings_of,
)
from benchmarks.alignment.pool import (
    TASTES,
    TIE_BELOW_SD,
    Pool,
    latents_of,
    leaves_open,
    load_reader,
    other_taste,
    utilities,
)
from data.starter.recipe.evaluate import named_attributes
from sail import backbones
from sail.annotate import ShownPair
from sail.candidates import decoded
from sail.config import Scoring
from sail.cost import evaluations_to_learn, evaluations_to_propose
from sail.files import read_lines, sha256_file
from sail.loop import Rounds, human_pairs, kept_self_pairs
from sail.model_ref import ModelRef, Precision
from sail.monitors import Appearance, appearance
from sail.pairing import best_and_worst
from sail.policy import Policy
from sail.records import LabelValue
from sail.requests import ProposeRequest, TrainRequest
from sail.reward import draw_weights, gains
from sail.rounds import Round, parse_prompts, split_prompts
from sail.runfolder import RunFolder
from sail.sampling import draw
from sail.settings import LoopSettings

SETTINGS = frozenset(LoopSettings.model_fields)
OF_SELF_PAIRS = {
    "prompts_per_round", "later_prompts_per_round", "num_candidates", "draw_strength", "choose",
    "self_pairs_per_prompt", "keep_self_pairs", "min_margin", "mixup",
}  # fmt: skip
"""Settings that say nothing to a method that learns from human pairs alone."""
OF_DRAWING = {"noise_seed", "sampling", "candidates_per_pair", "monitor_prompts"}
"""Those that say something to one that learns nothing."""
RULES = ""
"""Another word where code comes to give other figures for the same settings: units from before are void."""
HELPING = "judge of open pairs"
"""Beside a unit's rounds, what was trained to choose which pairs are asked about."""
STARTER = ModelRef(source="data/starter")
PROMPTS = Path("data/prompts")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the benchmark is, and how it computes: the same for every method."""

    steps: int = 60
    """Optimiser steps a round; methods with one training have those of all rounds."""
    held_out_prompts: int = 160
    prompts_after_a_round: int = 32
    prompts_drawn_often: int = 40
    """Held-out prompts that are drawn four times each, to see how much images of one prompt differ."""
    judged_pairs: int = 48
    """Pairs of the pool with a clear winner that nobody labelled, to measure judges on."""
    pool_pairs: int = 1600
    """Pairs that may be labelled; so many that there are `judged_pairs` besides are drawn."""
    precision: Precision = "auto"
    prompts_per_round: int = field(default=64, repr=False)
    """Not in `repr`, by which units are known: their settings say it."""

    def changes(self, rounds: int) -> Changes:
        return {
            "optimisation.steps": self.steps * rounds,
            "monitor_prompts": 16,
            "prompts_per_round": self.prompts_per_round,
        }


def inputs(size: Size) -> str:
    """What figures hang on besides code and settings (starter, prompts, size, rounds): 12 hex digits."""
    return _digest(f"{size} {SEED_ROUNDS + SELF_ROUNDS} {_files()}{RULES}")[:12]


@cache
def _files() -> list[str]:
    files = [*sorted(Path(STARTER.source).rglob("*.safetensors")), *sorted(PROMPTS.glob("*.txt"))]
    return [sha256_file(file) for file in files]


def settings_at(size: Size, method: Method, repeat: int, **more: Any) -> LoopSettings:
    """A method's settings at the benchmark's size, in one repeat."""
    settings = settings_of(method, STARTER, {**size.changes(method.steps_of_rounds), **more})
    return settings.model_copy(update={"noise_seed": 10_000 * (repeat + 1)})


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "peft")},
    }


def known_by(settings: LoopSettings, method: Method) -> str:
    """8 hex digits: what was begun with other settings, or by another method, is not gone on with."""
    return _digest(f"{settings.model_dump_json()} {method.asked()}")[:8]


def still_holds(unit: Mapping[str, Any], size: Size) -> bool:
    """Whether a finished unit is of this starter, at this size, and of its method as it is now.

    At whichever precision: two of them draw the same pictures, and a machine is slow at one or the other. A
    setting that there was not yet when it was measured had its default, which changes nothing by itself.
    """
    same = [inputs(replace(size, precision=precision)) for precision in get_args(Precision)]
    if unit["inputs"] not in same or unit["method"].split()[0] not in METHODS:
        return False
    method = method_named(unit["method"])
    if unit.get("asked") != method.asked():
        return False
    used = SETTINGS if method.proposes else SETTINGS - OF_SELF_PAIRS
    used = used if method.holds_out else used - {"held_out_every"}
    if method.train is nothing:
        used = used & OF_DRAWING
    try:
        then = LoopSettings.model_validate(unit["settings"])
    except ValidationError:  # A setting that is gone.
        return False
    return then.model_dump(include=used) == settings_at(size, method, unit["repeat"]).model_dump(include=used)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def policy_at(model: ModelRef, at: Round | None) -> Policy:
    """The model, with the adapter of a round if there is one."""
    policy = Policy(backbones.load(model))
    if at is not None:
        policy.load("policy", Path(at.adapter))
    return policy


class Study:
    """One repeat: its pool of pairs, its held-out images, its units."""

    def __init__(self, out: Path, repeat: int, size: Size) -> None:
        self.inputs = inputs(size)
        self.model = STARTER.model_copy(update={"precision": size.precision})
        self._out, self._repeat, self._size = out / self.inputs, repeat, size
        prompts = parse_prompts((PROMPTS / "starter.txt").read_text())
        random.Random(f"prompts/{repeat}").shuffle(prompts)
        self.prompts = prompts
        held_out = parse_prompts((PROMPTS / "heldout.txt").read_text())
        self._held_out = random.Random(f"held out/{repeat}").sample(held_out, size.held_out_prompts)
        self._pools: dict[str, Pool] = {}
        self._base: list[Image.Image] = []
        self._base_appearance: Appearance | None = None

    def unit(self, taste: str, name: str) -> dict[str, Any]:
        """Train and measure one method; what the results file keeps of it."""
        method, pool = method_named(name), self.pool(taste)
        settings = self.settings(method)
        folder = self._out / f"{self._repeat}-{taste}-{name}-{known_by(settings, method)}".replace(" ", "_")
        rounds = OtherRounds(
            folder,
            self.model,
            settings,
            self.prompts,
            count=method.checked,
            choose=lambda pair, *images: pool.choose(f"{self._repeat}/{pair}", *images),
            shares=method.shares,
        )
        # Those that the pairs which could be asked about were drawn for.
        rounds.take_prompts(window(method.order, method.labels))
        pairs = human_pairs(*self.labelled(taste, method, folder), settings)
        method.train(rounds, pairs)
        runs = [
            RunFolder(run) for part in (folder, folder / HELPING) for run in sorted(part.glob("[0-9]*-*"))
        ]
        seconds = sum((run.result() or {}).get("seconds", 0.0) for run in runs)
        last = rounds.done[-1] if rounds.done else None
        current = rounds.current if method.gated else last
        found = {
            "inputs": self.inputs,
            "settings": settings.model_dump(mode="json"),
            "taste": taste,
            "method": name,
            "repeat": self._repeat,
            "precision": backbones.load(self.model).precision,
            "asked": method.asked(),
            "versions": versions(),
            "pool": pool.told(self._repeat),
            "labels": method.labels,
            "winners": sum(pair.source == "human" for pair in pairs),
            "agreement": pool.agreement,
            "checked": rounds.said,
            **self._measured(taste, settings, current),
            "current": current.round if current else None,
            "rounds": [self._round(taste, settings, one, folder) for one in rounds.done],
            "unet_evaluations": sum(map(evaluations, runs)),
            "seconds": round(seconds, 1),
        }
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def settings(self, method: Method, **more: Any) -> LoopSettings:
        return settings_at(self._size, method, self._repeat, **more)

    # The pool of labelled pairs

    def draw_pool(self) -> list[ShownPair]:
        """The pairs that people are shown, from the base model; drawn once for all methods."""
        return [pair for turn in range(self.turns()) for pair in self.draw_turn(turn)]

    def turns(self) -> int:
        """How often the pool goes through the prompts."""
        return -(-self._pool_pairs // self._prompts_to_learn_from)

    def draw_turn(self, turn: int) -> list[ShownPair]:
        """A pair for every prompt, as the loop draws them: the farthest two of its candidates.

        In turns, and not several pairs of one prompt's candidates, of which the first would differ more than
        the others: whoever labels few is to see pairs like everybody else's.
        """
        settings = self.settings(METHODS["base"])
        drawn_with = f"{settings.sampling.model_dump_json()} {settings.candidates_per_pair}"
        folder = self._out / f"{self._repeat}-pool-{_digest(drawn_with)[:8]}" / str(turn)
        settings = settings.model_copy(update={"noise_seed": settings.noise_seed + 1000 * (turn + 1)})
        before = turn * self._prompts_to_learn_from
        count = min(self._pool_pairs - before, self._prompts_to_learn_from)
        pairs = Rounds(folder, self.model, settings, self.prompts).draw_seed(count)
        return [replace(pair, ordinal=before + pair.ordinal) for pair in pairs]

    @property
    def _pool_pairs(self) -> int:
        # About a third of the pairs are clear to somebody who likes one size.
        return self._size.pool_pairs + 5 * self._size.judged_pairs

    @property
    def _prompts_to_learn_from(self) -> int:
        return len(split_prompts(self.prompts, self.settings(METHODS["base"]))[0])

    def pool(self, taste: str) -> Pool:
        if taste not in self._pools:
            self._pools[taste] = Pool(taste, self.draw_pool(), to_label=self._size.pool_pairs)
        return self._pools[taste]

    def labelled(
        self, taste: str, method: Method, folder: Path
    ) -> tuple[list[ShownPair], dict[str, LabelValue]]:
        """The pairs that a method's person is shown, and what they say. A judge that helps to choose them is
        trained in `folder`."""
        pool = self.pool(taste)

        def judge(answered: Sequence[int], others: Sequence[int]) -> dict[int, float]:
            settings = self.settings(method)
            given = pool.labels(method, self._repeat, asked=answered)
            rounds = Rounds(folder / HELPING, self.model, settings, self.prompts)
            policy = policy_at(self.model, rounds.train(human_pairs(*given, settings), parent=None))
            pairs = [latents_of(pool.pairs[place]) for place in others]
            return dict(zip(others, margins(policy, pairs, settings.scoring), strict=True))

        asked = asked_about(
            pool.pairs, method.order, method.labels, judge=judge, seed=f"asked/{self._repeat}/{taste}"
        )
        beside = self.pool(other_taste(taste)) if method.second_taste else None
        return pool.labels(method, self._repeat, beside=beside, asked=asked)

    def unseen(self, taste: str) -> list[tuple[str, torch.Tensor]]:
        """Pairs that nobody labels, to measure judges on."""
        return self.pool(taste).unseen(self._size.judged_pairs)

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
        latents_NCHW = torch.cat([one.latents_NCHW for one in drawn])
        images_NHW3 = decoded(policy, latents_NCHW, settings.sampling.chunk)
        return [Image.fromarray(image_HW3.numpy()) for image_HW3 in images_NHW3]

    def _base_images(self, settings: LoopSettings) -> list[Image.Image]:
        """What the base model draws, the same for every method and taste."""
        self._base = self._base or self._images(settings, policy_at(self.model, None))
        return self._base

    def _measured(self, taste: str, settings: LoopSettings, current: Round | None) -> dict[str, Any]:
        """What the adapter that was arrived at draws for held-out prompts; None is the base model."""
        if self._base_appearance is None:
            self._base_appearance = self._appearance(settings, policy_at(self.model, None))
        base, sd = self._base_appearance, self.pool(taste).sd
        if current is None:
            images, own = self._base_images(settings), base
        else:
            policy = policy_at(self.model, current)
            images, own = self._images(settings, policy), self._appearance(settings, policy)
        return {
            **self._read(taste, images, sd),
            "diversity_ratio": own.diversity / base.diversity,
            "saturation_ratio": own.saturation / base.saturation,
        }

    def _appearance(self, settings: LoopSettings, policy: Policy) -> Appearance:
        """On other prompts and other noise than the gate, which went as far as its own reading allows."""
        drawn = draw(
            policy,
            self._held_out[-self._size.prompts_drawn_often :],
            per_prompt=4,
            noise_seed=8_000_000 + self._repeat,
            sampling=settings.sampling,
        )
        return appearance([decoded(policy, one.latents_NCHW, settings.sampling.chunk) for one in drawn])

    def _read(self, taste: str, images: Sequence[Image.Image], sd: float) -> dict[str, Any]:
        """Image by image: utility in standard deviations of base, whether its prompt leaves open what the
        taste is about, and whether the named subject is found; and the share of all named attributes that
        are."""
        reader = load_reader("measuring")
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
            "open": [int(is_open) for is_open in leaves_open(taste, self._held_out)],
            "prompt_following": float(np.mean(hits)),
            "subject_found": [int(found) for found in subjects],
        }

    def _gain_so_far(self, taste: str, settings: LoopSettings, policy: Policy, sd: float) -> float:
        """Mean utility over base, in standard deviations, on some of the held-out prompts."""
        count = self._size.prompts_after_a_round
        images = (self._images(settings, policy, count), self._base_images(settings)[:count])
        own, base = (TASTES[taste].utilities(side, load_reader("measuring")).mean() for side in images)
        return float(own - base) / sd

    def _round(self, taste: str, settings: LoopSettings, one: Round, folder: Path) -> dict[str, Any]:
        """What its own gate measured, and what only we can know: is the judge right?"""
        policy, sd = policy_at(self.model, one), self.pool(taste).sd
        proposed = folder / f"{2 * one.round:04d}-propose"
        return {
            "round": one.round,
            "accepted": one.accepted,
            "kept": one.kept,
            "gate_accuracy": one.judge_accuracy.value,
            "gate_pairs": one.judge_accuracy.n,
            "judge_accuracy": _right(policy, self.unseen(taste), settings.scoring),
            "utility": self._gain_so_far(taste, settings, policy, sd),
            "self_pairs": read_self_pairs(taste, RunFolder(proposed), sd, settings),
            "human_agreement": one.human_agreement.value if one.human_agreement else None,
            "diversity_ratio": one.diversity_ratio,
            "saturation_ratio": one.saturation_ratio,
            "winner_gain": one.winner_gain,
            "loser_gain": one.loser_gain,
        }


def read_self_pairs(
    taste: str, folder: RunFolder, sd: float, settings: LoopSettings
) -> dict[str, Any] | None:
    """What the judge chose among its own images: for every prompt its best and its worst, however unclear to
    it, and the pairs that were learned from. None where it was not asked."""
    if not folder.path.exists():
        return None
    sets = utilities_of(taste, folder, sd)
    best_worst = [
        (one["prompt_index"], best, worst)
        for one in read_lines(folder.path / "rewards.jsonl")
        for best, worst in best_and_worst(one["rewards"])
    ]
    learned = [(pair.prompt_index, pair.winner, pair.loser) for pair in kept_self_pairs(folder, settings)]
    return {
        "best_worst": _liked(sets, best_worst),
        "learned_from": _liked(sets, learned),
        "best_gap": float(np.mean([own.max() - own.min() for own in sets.values()])),
    }


def _liked(sets: Mapping[int, np.ndarray], pairs: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """Of pairs (prompt, winner, loser) that differ clearly: how many, and whose winner is liked better; and
    the mean difference of all."""
    gaps = np.array([sets[prompt][winner] - sets[prompt][loser] for prompt, winner, loser in pairs])
    clear = np.abs(gaps) >= TIE_BELOW_SD
    return {
        "clear": int(clear.sum()),
        "right": int((gaps[clear] > 0).sum()),
        "gap": float(gaps.mean()) if len(gaps) else None,
    }


def utilities_of(taste: str, folder: RunFolder, sd: float) -> dict[int, np.ndarray]:
    """Prompt index -> (N,) utility of its candidates, in standard deviations."""
    return {
        one.prompt_index: utilities(taste, [folder.path / own.image for own in one.candidates], "measuring")
        / sd
        for one in folder.candidate_sets()
    }


def evaluations(run: RunFolder) -> int:
    """Denoiser evaluations of images in a run: training and proposing.

    What everybody pays alike (the images to label, the held-out ones) is left out, and so is what the gate
    measures.
    """
    request, result = run.request(), run.result() or {}
    if isinstance(request, ProposeRequest):
        return evaluations_to_propose(request)
    assert isinstance(request, TrainRequest)
    pairs = {side: result[side] for side in ("human_pairs", "self_pairs", "tie_pairs")}
    return evaluations_to_learn(request, **pairs)


def _right(policy: Policy, pairs: Sequence[tuple[str, torch.Tensor]], scoring: Scoring) -> float:
    """Share of pairs (prompt, latents of the better and the worse) that the policy as a judge gets right."""
    return float(np.mean(np.array(margins(policy, pairs, scoring)) > 0))


def margins(policy: Policy, pairs: Sequence[tuple[str, torch.Tensor]], scoring: Scoring) -> list[float]:
    """By how much the policy as a judge prefers the first image of each pair (prompt, latents of both)."""
    gains_2K = [gains(policy, prompt, latents, scoring, reference="base") for prompt, latents in pairs]
    weight_K = draw_weights(gains_2K, scoring)
    return [float((own[0] - own[1]) @ weight_K.float()) for own in gains_2K]
