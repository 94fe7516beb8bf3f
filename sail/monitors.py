"""Judge accuracy, diversity, saturation, and the gate. Knows no optimiser and no person.

N candidates of a prompt, K draws, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypeVar

import torch
from scipy.special import bdtr
from torch import Tensor

from sail import cost, distributed
from sail.candidates import decoded
from sail.config import Monitoring, Sampling, Scoring
from sail.policy import Part, Policy, Weights
from sail.progress import Progress
from sail.records import Interval, JudgedPair, human_margin
from sail.reward import draw_weights, gains, margin_with_error
from sail.sampling import done_or_of_others, draw

T = TypeVar("T")
TAIL = 0.025
"""Below a 95 % interval."""


class HumanPair(NamedTuple):
    """A human pair to judge. Its latents are winner, then loser: 2 C H W."""

    id: str
    prompt: str
    latents_2CHW: Tensor
    held_out: bool


def judged_pairs(
    policy: Policy,
    pairs: Sequence[HumanPair],
    scoring: Scoring,
    *,
    progress: Progress,
    beta: float = 1.0,
    what: str = cost.JUDGE,
) -> list[JudgedPair]:
    """Margin of every pair under `policy` as the judge, in nats at `beta`; draws weigh by all of them.

    Against base whatever `scoring` says, so that figures of all rounds compare.
    """
    if not pairs:
        return []
    own = distributed.share(range(len(pairs)))
    policy.backbone.expect([pairs[index].prompt] for index in own)
    progress.stage(what, len(own))
    found: dict[int, Tensor] = {}
    with distributed.together():
        for index in own:
            pair = pairs[index]
            found[index] = gains(policy, pair.prompt, pair.latents_2CHW, scoring, reference="base")
            progress.advance()
            progress.stop_if_asked()
    gains_2K = _in_order(found)
    weight_K = draw_weights(gains_2K, scoring)
    judged = []
    for pair, gain_2K in zip(pairs, gains_2K, strict=True):
        margin, error = margin_with_error(gain_2K[0], gain_2K[1], weight_K, beta=beta)
        judged.append(JudgedPair(id=pair.id, margin=margin, margin_error=error, held_out=pair.held_out))
    return judged


def _in_order(found: dict[int, T]) -> list[T]:
    """What all processes found, by index."""
    whole = {index: one for part in distributed.everyones(found) for index, one in part.items()}
    return [whole[index] for index in sorted(whole)]


def agreement(judged: Sequence[JudgedPair]) -> Interval:
    """Share of pairs in which the judge is with the people; a margin of exactly 0 counts half."""
    return Interval.of(
        sum(0.5 if pair.margin == 0 else float(pair.margin > 0) for pair in judged), len(judged)
    )


@dataclass(frozen=True)
class Appearance:
    """What a set of images looks like, all prompts together."""

    diversity: float
    """Root mean square difference of two images of one prompt, averaged over pairs and prompts, 0 to 1."""
    saturation: float
    """Mean of (largest - smallest colour channel), 0 to 1."""


def appearance(images_of_prompts: Sequence[Tensor]) -> Appearance:
    """`images_of_prompts`: for each prompt uint8 N H W 3."""
    return _mean([_of_prompt(images_NHW3) for images_NHW3 in images_of_prompts])


def _of_prompt(images_NHW3: Tensor) -> Tensor:
    """Diversity and saturation of one prompt's images: (2,)."""
    unit = images_NHW3.float() / 255
    # Two at a time: all differences of sixteen large images are gigabytes.
    apart = [(one - other).square().mean().sqrt() for one, other in combinations(unit, 2)]
    distance = torch.stack(apart).mean()
    return torch.stack([distance, (unit.amax(-1) - unit.amin(-1)).mean()])


def _mean(of_prompts: Sequence[Tensor]) -> Appearance:
    diversity, saturation = torch.stack(list(of_prompts)).mean(0).tolist()
    return Appearance(diversity, saturation)


def appearance_of(
    policy: Policy, part: Part, monitoring: Monitoring, sampling: Sampling, progress: Progress
) -> Appearance:
    """Of images of the monitored prompts drawn as `part`, on the same noise seeds for every part."""
    prompts, per_prompt = monitoring.prompts, monitoring.per_prompt
    skip = done_or_of_others(len(prompts), per_prompt, sampling)
    progress.stage(cost.DRAW_BASE if part == "base" else cost.DRAW_POLICY, len(prompts) - len(skip))
    found: dict[int, Tensor] = {}
    with distributed.together(), policy.acting_as(part):
        for drawn in draw(
            policy,
            prompts,
            per_prompt=per_prompt,
            noise_seed=monitoring.noise_seed,
            sampling=sampling,
            skip=skip,
        ):
            images_NHW3 = decoded(policy, drawn.latents_NCHW, sampling.chunk)
            found[drawn.prompt_index] = _of_prompt(images_NHW3)
            progress.advance()
            progress.stop_if_asked()
    of_prompts = _in_order(found)
    # What is drawn next hangs on it, and processes on unlike machines may differ in the last bit.
    return distributed.from_main(lambda: _mean(of_prompts))


@dataclass(frozen=True)
class Beside:
    """A policy's appearance as multiples of base's; None where nothing was drawn, or base has none."""

    diversity_ratio: float | None = None
    saturation_ratio: float | None = None


@dataclass(frozen=True)
class Measured:
    """What the gate decides on."""

    judged: list[JudgedPair]
    beside: Beside
    kept: float = 1.0
    """Share of the way of its training that the policy was left at."""
    cut_because: list[str] = field(default_factory=list)
    """What the gate said of the whole way, where only a part is kept."""
    times_drawn: int = 0
    """How often the policy's images were drawn for that."""
    human_margin: float | None = None
    """Of the pairs that it learned from, in nats at a beta of 1."""

    @property
    def judge_accuracy(self) -> Interval:
        """On the pairs that the judge never learned from."""
        return agreement([pair for pair in self.judged if pair.held_out])

    @property
    def human_agreement(self) -> Interval:
        """On the pairs that it did learn from."""
        return agreement([pair for pair in self.judged if not pair.held_out])

    def told(self, limits: Monitoring) -> dict[str, object]:
        """What result.json says of it, and of the gate."""
        reasons = closed_because(self, limits)
        return {
            "judge_accuracy": self.judge_accuracy.model_dump(),
            "human_agreement": self.human_agreement.model_dump(),
            "human_margin": self.human_margin,
            "diversity_ratio": self.beside.diversity_ratio,
            "saturation_ratio": self.beside.saturation_ratio,
            "accepted": not reasons,
            "reasons": reasons,
        }


def base_appearance(
    policy: Policy, monitoring: Monitoring, sampling: Sampling, progress: Progress
) -> Appearance | None:
    """What a policy's is held against; None where no images are asked for."""
    return appearance_of(policy, "base", monitoring, sampling, progress) if monitoring.prompts else None


def measure(
    policy: Policy,
    pairs: Sequence[HumanPair],
    *,
    base: Appearance | None,
    beta: float,
    scoring: Scoring,
    sampling: Sampling,
    monitoring: Monitoring,
    progress: Progress,
    begun: Weights | None = None,
) -> Measured:
    """Appearance beside `base`'s, on the same noise seeds, then the judge on human pairs.

    `begun` is what the policy was before the training that is measured. Where the gate refuses the images,
    the policy is put at the largest part of the way from there that it accepts, and is the judge as that.
    """
    kept, found, cut_because, times_drawn = 1.0, Beside(), list[str](), 0
    if base is not None:

        def beside_base() -> Beside:
            own = appearance_of(policy, "policy", monitoring, sampling, progress)
            ratios = _ratio(own.diversity, base.diversity), _ratio(own.saturation, base.saturation)
            return Beside(*ratios)

        found, times_drawn = beside_base(), 1
        refused = spoiled_because(found, monitoring)
        if refused and begun is not None:
            times_drawn += monitoring.halvings
            part = _largest_accepted_part(policy, begun, monitoring, beside_base)
            if part is not None:
                (kept, found), cut_because = part, refused
    judged = judged_pairs(policy, pairs, scoring, beta=beta, progress=progress)
    margin = human_margin(judged)
    return Measured(judged, found, kept, cut_because, times_drawn, None if margin is None else margin / beta)


def _largest_accepted_part(
    policy: Policy, begun: Weights, limits: Monitoring, beside_base: Callable[[], Beside]
) -> tuple[float, Beside] | None:
    """By halving: the share of the way from `begun` that the policy is put at, and how that looks.

    None, and the policy as it was, where none was found.
    """
    ended, most, least = policy.state(), 1.0, 0.0
    accepted: Beside | None = None
    for _ in range(limits.halvings):
        share = (most + least) / 2
        policy.put_between(begun, ended, share)
        found = beside_base()
        if spoiled_because(found, limits):
            most = share
        else:
            least, accepted = share, found
    policy.put_between(begun, ended, least if accepted else 1.0)
    return (least, accepted) if accepted else None


def _ratio(value: float, base: float) -> float | None:
    """None where base has nothing of it, as for images that are all grey."""
    return value / base if base > 1e-6 else None


def closed_because(measured: Measured, limits: Monitoring) -> list[str]:
    """Why the round is not accepted, in sentences; [] where it is."""
    accuracy = measured.judge_accuracy
    reasons = []
    if _is_surely_below(accuracy, limits.min_judge_accuracy):
        reasons.append(
            f"Of pairs kept aside the judge is right on {accuracy.value:.0%} of {accuracy.n}, "
            f"at best {accuracy.high:.0%}; the gate asks for {limits.min_judge_accuracy:.0%}."
        )
    return reasons + spoiled_because(measured.beside, limits)


def _is_surely_below(found: Interval, share: float) -> bool:
    """Whether so few right come by chance in less than one of forty times where `share` is right.

    The binomial distribution itself: of four pairs, which is what a few dozen labels hold out, none right is
    by Wilson's interval at best 49 %, and comes to a judge that is right in 60 % of all in one of forty.
    """
    if found.value is None:
        return False
    return bool(bdtr(math.ceil(found.value * found.n - 1e-9), found.n, share) < TAIL)


def spoiled_because(found: Beside, limits: Monitoring) -> list[str]:
    """Why images like these are not accepted; [] where they are."""
    reasons = []
    diversity, least = found.diversity_ratio, limits.min_diversity_ratio
    if diversity is not None and diversity < least:
        reasons.append(
            f"Images of one prompt differ {_told_from(least, diversity)} times as much as the base model's; "
            f"the gate asks for {least:.2f}."
        )
    saturation = found.saturation_ratio
    most = limits.max_saturation_ratio
    if saturation is not None and not 1 / most <= saturation <= most:
        bound = most if saturation > most else 1 / most
        reasons.append(
            f"Images are {_told_from(bound, saturation)} times as saturated as the base model's; "
            f"the gate allows {1 / most:.2f} to {most:.2f}."
        )
    return reasons


def _told_from(bound: float, value: float) -> str:
    """With two decimals, or as many as it takes to see that it is not the bound."""
    enough = (digits for digits in range(2, 7) if f"{value:.{digits}f}" != f"{bound:.{digits}f}")
    return f"{value:.{next(enough, 7)}f}"
