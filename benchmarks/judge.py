"""How many draws does a judge need, and how should they be put together?

    python -m benchmarks.judge

For each taste a judge is trained on 96 labels in 120 steps. It then draws eight candidates a prompt and
scores them with many draws: shared by a prompt's candidates and stratified; the same as antithetic twins,
each noise once more turned round, at the same timestep; and each candidate's own. Every way to put some of
them together is tried on these: the share of best-worst pairs that are right, and the difference in utility
between best and worst as a share of the largest possible.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.alignment.__main__ import RESULTS
from benchmarks.alignment.methods import METHODS
from benchmarks.alignment.pool import TIE_BELOW_SD
from benchmarks.alignment.study import Size, Study, known_by, policy_at, utilities_of
from sail.config import Scoring
from sail.files import publish
from sail.loop import Rounds, human_pairs
from sail.policy import Part, Policy
from sail.reward import Bank, bank_of, draw_errors
from sail.runfolder import RunFolder

WORK = Path("data/projects/judge")
TASTES = ("light", "smoothness", "flat or dark")
DRAWS = 32
INDEPENDENT = 10
"""Draws of its own for each candidate, as in the paper."""
WAYS = (
    ("own", "mean"),
    ("shared", "mean"),
    ("shared", "normalised"),
    ("twins", "mean"),
    ("twins", "normalised"),
)
PARTS: tuple[Part, Part] = "base", "policy"
COUNTS = (2, 3, 4, 5, 6, 8, 10, 16, 32)
PROMPTS = 48


def measured(out: Path, taste: str, repeat: int, size: Size) -> dict[str, np.ndarray]:
    """Gains of every candidate under every draw, and what is liked: one judge's own candidates."""
    study, method = Study(out.parent / "alignment", repeat, size), METHODS["sail_6"]
    out = out / study.inputs
    settings = study.settings(method, prompts_per_round=PROMPTS)
    folder = out / f"{repeat}-{taste}-{known_by(settings, method)}".replace(" ", "_")
    file = folder.with_suffix(".gains.npz")
    if file.exists():
        return dict(np.load(file))
    rounds = Rounds(folder, study.model, settings, study.prompts)
    rounds.take_prompts(method.labels)
    judge = rounds.train(human_pairs(*study.labelled(taste, method, folder), settings), parent=None)
    rounds.self_annotated(judge)
    policy, proposed = policy_at(study.model, judge), RunFolder(folder / "0002-propose")
    sets = [
        (one.prompt, load_file(proposed.path / one.latents)["latents"]) for one in proposed.candidate_sets()
    ]
    arrays = {
        "utility": np.stack(list(utilities_of(taste, proposed, study.pool(taste).sd).values())),
        "shared": _scored(policy, sets, Scoring(draws=DRAWS)),
        "own": _scored(policy, sets, Scoring(draws=DRAWS, shared=False)),
        "twins": _scored(policy, sets, Scoring(draws=DRAWS // 2), antithetic),
    }
    publish(file, lambda beside: _save(beside, arrays))
    return arrays


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(file, "wb") as out:
        np.savez(out, **arrays)


def antithetic(bank: Bank) -> Bank:
    """Every draw twice, one after the other, the second with its noise turned round: (N, 2K)."""
    noise_NKCHW = bank.noise_NKCHW
    return Bank(
        bank.timesteps_NK.repeat_interleave(2, 1), torch.stack([noise_NKCHW, -noise_NKCHW], 2).flatten(1, 2)
    )


def _scored(
    policy: Policy,
    sets: Sequence[tuple[str, Tensor]],
    scoring: Scoring,
    change: Callable[[Bank], Bank] = lambda bank: bank,
) -> np.ndarray:
    """(prompts, candidates, draws) gains over the base model."""
    backbone, found = policy.backbone, []
    for prompt, latents in sets:
        count, channels, height, width = latents.shape
        shape = channels, height, width
        bank = change(bank_of(prompt, count, shape, backbone.num_train_timesteps, scoring))
        conditioning = backbone.conditioning_of([prompt])
        base, own = (
            draw_errors(policy, part, latents, conditioning, bank, chunk=scoring.chunk) for part in PARTS
        )
        found.append((base - own).numpy())
    return np.stack(found)


def put_together(gains_GNK: np.ndarray, average: str) -> np.ndarray:
    """(prompts, candidates, draws) -> rewards (prompts, candidates), up to a factor."""
    if average == "mean":
        return gains_GNK.mean(2)
    spread_K = gains_GNK.var(1).mean(0) ** 0.5
    return (gains_GNK / np.maximum(spread_K, 1e-12)).mean(2)


def judged(rewards_GN: np.ndarray, utility_GN: np.ndarray) -> tuple[float, float]:
    """(share of clear best-worst pairs that are right, gap of utility as a share of the largest)."""
    rows = np.arange(len(rewards_GN))
    best, worst = np.nanargmax(rewards_GN, 1), np.nanargmin(rewards_GN, 1)
    gap = utility_GN[rows, best] - utility_GN[rows, worst]
    clear = np.abs(gap) >= TIE_BELOW_SD
    largest = (utility_GN.max(1) - utility_GN.min(1)).mean()
    return float((gap[clear] > 0).mean()), float(gap.mean() / largest)


def some_of(gains_GNK: np.ndarray, count: int, turn: int, *, how: str) -> np.ndarray:
    """`count` of the draws, the `turn`-th such choice: any, or of shared ones one from each slice."""
    draws = gains_GNK.shape[2]
    rng = np.random.default_rng(turn)
    if how == "twins":
        pairs_GNJ2 = gains_GNK.reshape(*gains_GNK.shape[:2], -1, 2)
        firsts, seconds = (some_of(pairs_GNJ2[..., i], count // 2, turn, how="shared") for i in (0, 1))
        return np.concatenate([firsts, seconds], 2)
    if how == "shared":
        places = ((np.arange(count) + rng.random(count)) * draws / count).astype(int)
    else:
        places = rng.choice(draws, count, replace=False)
    return gains_GNK[:, :, places]


def table(all_of: Sequence[dict[str, np.ndarray]], turns: int = 8) -> list[dict[str, Any]]:
    """Every way, averaged over judges and over choices of draws."""
    lines = []
    for name, average in WAYS:
        for count in COUNTS:
            if name == "twins" and count % 2:
                continue
            found = [
                judged(
                    put_together(some_of(one[name], count, turn, how=name), average),
                    one["utility"],
                )
                for one in all_of
                for turn in range(turns)
            ]
            right, gap = np.mean(found, axis=0)
            line = {"draws": name, "average": average, "K": count}
            lines.append({**line, "right": round(float(right), 3), "gap": round(float(gap), 3)})
    return lines


def race_table(
    all_of: Sequence[dict[str, np.ndarray]], count: int = INDEPENDENT, turns: int = 8
) -> list[dict[str, Any]]:
    """What it brings to stop drawing for candidates that are out of the race, of `count` shared draws."""
    lines = []
    for first, errors in ((count, 0.0), (3, 1.0), (3, 2.0), (5, 1.0), (5, 2.0)):
        found = []
        for one in all_of:
            for turn in range(turns):
                drawn = some_of(one["shared"], count, turn, how="shared")
                rewards_GN, share = raced(drawn, first=first, errors=errors)
                found.append((*judged(rewards_GN, one["utility"]), share))
        right, gap, share = (round(float(value), 3) for value in np.mean(found, axis=0))
        lines.append({"first": first, "errors": errors, "right": right, "gap": gap, "draws_made": share})
    return lines


def raced(gains_GNK: np.ndarray, *, first: int, errors: float) -> tuple[np.ndarray, float]:
    """Judged draw by draw, dropping candidates that are neither best nor worst: rewards, share of draws made.

    After `first` draws a candidate is dropped when it lies more than so many standard errors (of the
    difference, draw by draw) below the best and above the worst of those that are left. Rewards are those of
    all draws, and nan where dropped. The order of draws is by lot, so that the first cover all timesteps.
    """
    made, rewards_GN = 0, np.full(gains_GNK.shape[:2], np.nan)
    for prompt, drawn_NK in enumerate(gains_GNK):
        order = np.random.default_rng(prompt).permutation(drawn_NK.shape[1])
        left = np.arange(len(drawn_NK))
        for count in range(1, len(order) + 1):
            made += len(left)
            seen_NK = drawn_NK[left][:, order[:count]]
            if first <= count < len(order):
                mean_N = seen_NK.mean(1)
                ends = {int(mean_N.argmax()), int(mean_N.argmin())}
                keep = np.array(
                    [
                        one in ends or any(_near(seen_NK[one], seen_NK[end], errors) for end in ends)
                        for one in range(len(left))
                    ]
                )
                left = left[keep]
        rewards_GN[prompt, left] = drawn_NK[left].mean(1)
    return rewards_GN, made / gains_GNK.size


def _near(own_K: np.ndarray, other_K: np.ndarray, errors: float) -> bool:
    apart_K = own_K - other_K
    return bool(abs(apart_K.mean()) <= errors * apart_K.std(ddof=1) / len(apart_K) ** 0.5)


def accuracy(lines: Sequence[dict[str, Any]], draws: str, average: str, count: int) -> float:
    return next(
        float(line["right"])
        for line in lines
        if (line["draws"], line["average"], line["K"]) == (draws, average, count)
    )


def draws_for(lines: Sequence[dict[str, Any]], average: str, *, as_good_as: float) -> int | None:
    """The smallest number of shared draws from which on every larger number is right so often."""
    enough = None
    for count in reversed(COUNTS):
        if accuracy(lines, "shared", average, count) < as_good_as:
            break
        enough = count
    return enough


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tastes", nargs="*", default=list(TASTES))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="where judges are kept, to go on after a stop"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "judge.json")
    asked = parser.parse_args()
    size = Size(pool_pairs=96, judged_pairs=64, steps=120, precision=asked.precision)
    judges = [measured(asked.work, taste, i, size) for taste in asked.tastes for i in range(asked.repeats)]
    lines, races = table(judges), race_table(judges)
    for line in [*lines, *races]:
        print(json.dumps(line))
    enough = {
        average: draws_for(lines, average, as_good_as=accuracy(lines, "own", "mean", INDEPENDENT))
        for average in ("mean", "normalised")
    }
    for average, count in enough.items():
        print(
            f"{average}: {count or 'no number of'} shared draws are right as often as {INDEPENDENT} own ones"
        )
    command = ["python -m benchmarks.judge", *sys.argv[1:]]
    found = {
        "command": " ".join(command),
        "tastes": asked.tastes,
        "table": lines,
        "shared_draws_for": enough,
        "races": races,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
