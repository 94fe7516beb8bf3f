"""Rank candidates and pairs. Sees rewards, never tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations

from sail.config import Choose
from sail.records import SelfPair


def most_different(distance_NN: Sequence[Sequence[float]], count: int) -> list[tuple[int, int]]:
    """`count` pairs of N candidates, none in two of them: the two farthest apart, then of the others.

    Two images that hardly differ are a tie to whoever looks at them, and a tie teaches nothing.
    """
    left = set(range(len(distance_NN)))
    pairs = []
    for _ in range(count):
        pair = max(combinations(sorted(left), 2), key=lambda both: distance_NN[both[0]][both[1]])
        left -= set(pair)
        pairs.append(pair)
    return pairs


def two_at_random(rewards: Sequence[float], rng: random.Random) -> tuple[int, int] | None:
    """Two candidates drawn by lot, the one with the higher reward first; None where they are alike."""
    one, other = rng.sample(range(len(rewards)), 2)
    if rewards[one] == rewards[other]:
        return None
    return (one, other) if rewards[one] > rewards[other] else (other, one)


def best_and_worst(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Indices of the highest and the lowest reward; None where all are equal."""
    best = max(range(len(rewards)), key=rewards.__getitem__)
    worst = min(range(len(rewards)), key=rewards.__getitem__)
    return None if rewards[best] == rewards[worst] else (best, worst)


def ranked_self_pairs(
    prompts: Sequence[str],
    rewards: Sequence[Sequence[float]],
    margin_error: Callable[[int, int, int], float],
    *,
    choose: Choose = "best_worst",
    noise_seed: int = 0,
) -> list[SelfPair]:
    """Best against worst of each prompt (or two by lot), the clearest pair first.

    `margin_error(prompt, winner, loser)` gives the standard error of a margin: where draws are shared it
    cannot be had from the two rewards' own errors.
    """
    pairs = []
    for prompt_index, (prompt, reward_N) in enumerate(zip(prompts, rewards, strict=True)):
        if choose == "random":
            chosen = two_at_random(reward_N, random.Random(f"{noise_seed}/{prompt_index}/{prompt}"))
        else:
            chosen = best_and_worst(reward_N)
        if chosen is None:
            continue
        winner, loser = chosen
        pairs.append(
            SelfPair(
                prompt_index=prompt_index,
                prompt=prompt,
                winner=winner,
                loser=loser,
                winner_reward=reward_N[winner],
                loser_reward=reward_N[loser],
                margin=reward_N[winner] - reward_N[loser],
                margin_error=margin_error(prompt_index, winner, loser),
                rank=0,
            )
        )
    pairs.sort(key=lambda pair: (-pair.confidence, pair.prompt_index))
    return [pair.model_copy(update={"rank": rank}) for rank, pair in enumerate(pairs)]
