"""Rank candidates and pairs. Sees rewards, never tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations

from sail.config import Choose
from sail.records import SelfPair


def most_different(distance_NN: Sequence[Sequence[float]], count: int) -> list[tuple[int, int]]:
    """`count` pairs of N candidates, none in two of them: the two farthest apart, then of the others.

    Two images that hardly differ are a tie to whoever looks at them, and a tie teaches no direction.
    """
    left = set(range(len(distance_NN)))
    pairs: list[tuple[int, int]] = []
    for pair in sorted(combinations(left, 2), key=lambda both: -distance_NN[both[0]][both[1]]):
        if len(pairs) < count and left.issuperset(pair):
            left -= set(pair)
            pairs.append(pair)
    return pairs


def two_at_random(rewards: Sequence[float], rng: random.Random) -> list[tuple[int, int]]:
    """Two candidates drawn by lot, the one with the higher reward first; none where they are alike."""
    one, other = rng.sample(range(len(rewards)), 2)
    if rewards[one] == rewards[other]:
        return []
    return [(one, other) if rewards[one] > rewards[other] else (other, one)]


def best_and_worst(rewards: Sequence[float], count: int = 1) -> list[tuple[int, int]]:
    """Indices of the best and the worst, then of the second best and second worst, and so on.

    At most `count` pairs, none with an index that another has, and none of two equal rewards.
    """
    falling = sorted(range(len(rewards)), key=lambda index: (-rewards[index], index))
    pairs = list(zip(falling, falling[::-1], strict=True))[: min(count, len(falling) // 2)]
    return [(best, worst) for best, worst in pairs if rewards[best] > rewards[worst]]


def ranked_self_pairs(
    prompts: Sequence[str],
    rewards: Sequence[Sequence[float]],
    margin_error: Callable[[int, int, int], float],
    *,
    choose: Choose = "best_worst",
    per_prompt: int = 1,
    min_margin: float = 0.0,
    noise_seed: int = 0,
) -> list[SelfPair]:
    """Best against worst of each prompt and so on inwards (or two by lot), the clearest pair first.

    Without those whose margin is below `min_margin`, in nats.

    The clearest are those with the largest margins. Its standard error says how far draws differ, and they
    differ most where most is at stake: divided by it, the emptiest pairs come first.
    `margin_error(prompt, winner, loser)` gives the standard error of a margin: where draws are shared it
    cannot be had from the two rewards' own errors.
    """
    pairs = []
    for prompt_index, (prompt, reward_N) in enumerate(zip(prompts, rewards, strict=True)):
        if choose == "random":
            chosen = two_at_random(reward_N, random.Random(f"{noise_seed}/{prompt_index}/{prompt}"))
        else:
            chosen = best_and_worst(reward_N, per_prompt)
        pairs += [
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
            for winner, loser in chosen
            if reward_N[winner] - reward_N[loser] >= min_margin
        ]
    pairs.sort(key=lambda pair: (-pair.margin, pair.prompt_index, pair.winner))
    return [pair.model_copy(update={"rank": rank}) for rank, pair in enumerate(pairs)]
