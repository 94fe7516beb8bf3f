"""Rank candidates and pairs. Sees rewards, never tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sail.records import SelfPair


def best_and_worst(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Indices of the highest and the lowest reward; None where all are equal."""
    best = max(range(len(rewards)), key=rewards.__getitem__)
    worst = min(range(len(rewards)), key=rewards.__getitem__)
    return None if rewards[best] == rewards[worst] else (best, worst)


def ranked_self_pairs(
    prompts: Sequence[str],
    rewards: Sequence[Sequence[float]],
    margin_error: Callable[[int, int, int], float],
) -> list[SelfPair]:
    """Best against worst of each prompt, the clearest pair first.

    `margin_error(prompt, winner, loser)` gives the standard error of a margin: draws are shared, so it
    cannot be had from the two rewards' own errors.
    """
    pairs = []
    for prompt_index, (prompt, reward_N) in enumerate(zip(prompts, rewards, strict=True)):
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
