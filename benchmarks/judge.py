"""How many draws does a judge need, and how should they be put together?

    python -m benchmarks.judge --tastes light smoothness "flat or dark"

For each taste a judge is trained on 96 labels in 120 steps. It then draws eight candidates a prompt and
scores them with many draws, once shared by a prompt's candidates and stratified, once with each candidate's
own. Every way to put some of them together is tried on these: the share of best-worst pairs that are right,
and the difference in utility between best and worst as a share of the largest possible.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.alignment.__main__ import RESULTS
from benchmarks.alignment.methods import METHODS
from benchmarks.alignment.pool import TIE_BELOW_SD, TUNING
from benchmarks.alignment.study import Size, Study, known_by, policy_at, utilities_of
from sail.config import Scoring
from sail.loop import Rounds, human_pairs
from sail.policy import Policy
from sail.reward import gains
from sail.runfolder import RunFolder, publish

WORK = Path("data/projects/judge")
DRAWS = 32
INDEPENDENT = 10
"""Draws of its own for each candidate, as in the paper."""
COUNTS = (2, 3, 4, 5, 6, 8, 10, 16, 32)
PROMPTS = 48


def measured(out: Path, taste: str, repeat: int, size: Size) -> dict[str, np.ndarray]:
    """Gains of every candidate under every draw, and what is liked: one judge's own candidates."""
    study, method = Study(out.parent / "alignment", repeat, size), METHODS["sail_6"]
    out = out / study.inputs
    settings = study.settings(method, prompts_per_round=PROMPTS)
    folder = out / f"{repeat}-{taste}-{known_by(settings)}".replace(" ", "_")
    file = folder.with_suffix(".npz")
    if file.exists():
        return dict(np.load(file))
    rounds = Rounds(folder, study.model, settings, study.prompts)
    rounds.take_prompts(method.labels)
    judge = rounds.train(human_pairs(*study.labelled(taste, method), settings), parent=None)
    rounds.self_annotated(judge)
    policy, proposed = policy_at(study.model, judge), RunFolder(folder / "0002-propose")
    sets = [
        (one.prompt, load_file(proposed.path / one.latents)["latents"]) for one in proposed.candidate_sets()
    ]
    arrays = {
        "utility": np.stack(list(utilities_of(taste, proposed, study.pool(taste).sd).values())),
        "shared": _scored(policy, sets, Scoring(draws=DRAWS)),
        "own": _scored(policy, sets, Scoring(draws=DRAWS, shared=False)),
    }
    publish(file, lambda beside: _save(beside, arrays))
    return arrays


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(file, "wb") as out:
        np.savez(out, **arrays)


def _scored(policy: Policy, sets: Sequence[tuple[str, Tensor]], scoring: Scoring) -> np.ndarray:
    """(prompts, candidates, draws) gains over the base model."""
    return np.stack(
        [gains(policy, prompt, latents, scoring, reference="base").numpy() for prompt, latents in sets]
    )


def put_together(gains_GNK: np.ndarray, average: str) -> np.ndarray:
    """(prompts, candidates, draws) -> rewards (prompts, candidates), up to a factor."""
    if average == "mean":
        return gains_GNK.mean(2)
    spread_K = gains_GNK.var(1).mean(0) ** 0.5
    return (gains_GNK / np.maximum(spread_K, 1e-12)).mean(2)


def judged(rewards_GN: np.ndarray, utility_GN: np.ndarray) -> tuple[float, float]:
    """(share of clear best-worst pairs that are right, gap of utility as a share of the largest)."""
    rows = np.arange(len(rewards_GN))
    gap = utility_GN[rows, rewards_GN.argmax(1)] - utility_GN[rows, rewards_GN.argmin(1)]
    clear = np.abs(gap) >= TIE_BELOW_SD
    largest = (utility_GN.max(1) - utility_GN.min(1)).mean()
    return float((gap[clear] > 0).mean()), float(gap.mean() / largest)


def some_of(gains_GNK: np.ndarray, count: int, turn: int, *, stratified: bool) -> np.ndarray:
    """`count` of the draws, the `turn`-th such choice: one from each slice, or any."""
    draws = gains_GNK.shape[2]
    rng = np.random.default_rng(turn)
    if stratified:
        places = ((np.arange(count) + rng.random(count)) * draws / count).astype(int)
    else:
        places = rng.choice(draws, count, replace=False)
    return gains_GNK[:, :, places]


def table(all_of: Sequence[dict[str, np.ndarray]], turns: int = 8) -> list[dict[str, Any]]:
    """Every way, averaged over judges and over choices of draws."""
    lines = []
    for name, average in (("own", "mean"), ("shared", "mean"), ("shared", "normalised")):
        for count in COUNTS:
            found = [
                judged(
                    put_together(some_of(one[name], count, turn, stratified=name == "shared"), average),
                    one["utility"],
                )
                for one in all_of
                for turn in range(turns)
            ]
            right, gap = np.mean(found, axis=0)
            line = {"draws": name, "average": average, "K": count}
            lines.append({**line, "right": round(float(right), 3), "gap": round(float(gap), 3)})
    return lines


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
    parser.add_argument("--tastes", nargs="*", default=list(TUNING))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="where judges are kept, to go on after a stop"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "judge.json")
    asked = parser.parse_args()
    size = Size(pool_pairs=96, judged_pairs=64, steps=120, precision=asked.precision)
    lines = table(
        [measured(asked.work, taste, i, size) for taste in asked.tastes for i in range(asked.repeats)]
    )
    for line in lines:
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
    found = {"command": " ".join(command), "tastes": asked.tastes, "table": lines, "shared_draws_for": enough}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
