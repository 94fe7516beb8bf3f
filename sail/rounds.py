"""seed -> propose -> review -> train -> gate: what comes next, and the request that asks for it.

Used by the loop command and by the app. Knows requests and results, never tensors, users or a database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from sail import mixup
from sail.config import MAX_PROMPT_CHARS, MOST_CANDIDATES
from sail.model_ref import ModelRef
from sail.records import Interval, Record, TrainingPair
from sail.requests import ExportRequest, ProposeRequest, TrainRequest
from sail.settings import LoopSettings

NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
"""What a file that is no text, or no UTF-8, turns into."""
StepName = Literal["draw", "label", "train", "propose", "review"]


class Round(Record):
    """One turn of the loop that has been trained: its adapter and what was measured."""

    round: int
    parent: int | None
    """The round whose adapter it started from; None is the base model."""
    adapter: str
    """Absolute path of a folder that `load_lora_weights` takes."""
    sha256: str
    human_pairs: int
    self_pairs: int
    tie_pairs: int = 0
    """Pairs on which it was held where it began."""
    self_fraction: float
    judge_accuracy: Interval
    """On human pairs that were held out."""
    human_agreement: Interval | None = None
    """On human pairs that it learned from; None in results from before this was measured."""
    human_margin: float | None = None
    """How clear human pairs are to it: of those it learned from, in nats at a beta of 1; None in results from
    before this was measured."""
    diversity_ratio: float | None
    saturation_ratio: float | None
    winner_gain: float | None
    loser_gain: float | None
    """At the end of the training; None where what was written down of its steps was lost."""
    kept: float = 1.0
    """Share of the way from its parent that the training went; the rest went too far for the gate."""
    cut_because: tuple[str, ...] = ()
    """What the gate said of the whole way; empty where all is kept."""
    accepted: bool
    reasons: tuple[str, ...] = ()
    """Why the gate stayed closed; empty where the round was accepted."""
    seconds: float

    @classmethod
    def from_result(cls, result: dict[str, Any], *, number: int, parent: int | None, adapter: str) -> Round:
        """From the result.json of a train run, whose own `adapter` path is relative."""
        own = {key: result[key] for key in cls.model_fields if key in result}
        return cls.model_validate({**own, "round": number, "parent": parent, "adapter": adapter})


def current(rounds: Iterable[Round]) -> Round | None:
    """The last accepted round; None is the base model."""
    accepted = [round_ for round_ in rounds if round_.accepted]
    return accepted[-1] if accepted else None


def is_held_out(ordinal: int, settings: LoopSettings) -> bool:
    """Whether the pair of that ordinal is kept from training; the answer never changes as pairs are added."""
    return ordinal % settings.held_out_every == settings.held_out_every // 2


def parse_prompts(text: str) -> list[str]:
    """One prompt a line, without doubles and empty lines. ValueError says which line cannot be used."""
    prompts: dict[str, None] = {}
    # Some editors begin a file with a mark of its encoding.
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        prompt = line.strip()
        if len(prompt) > MAX_PROMPT_CHARS:
            raise ValueError(
                f"Line {number} has {len(prompt):,} characters; "
                f"a prompt has at most {MAX_PROMPT_CHARS:,}. Shorten it."
            )
        if not_text := NOT_TEXT.search(prompt):
            raise ValueError(
                f"Line {number} has {not_text.group()!a}, which is no text. "
                "Is it a text file, and saved as UTF-8?"
            )
        if prompt:
            prompts.setdefault(prompt)
    if not prompts:
        raise ValueError("There is no prompt. Write at least one, one per line.")
    return list(prompts)


def split_prompts(
    prompts: Sequence[str], settings: LoopSettings, learned: Set[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """(prompts to learn from, held-out prompts for monitors and comparisons).

    At most a fifth is held out, but one where there are fewer than five. One prompt alone is both,
    since something has to be drawn. Those that are `learned` from already are held out only where there are
    no others.
    """
    free = [prompt for prompt in prompts if prompt not in learned] or list(prompts)
    count = min(settings.monitor_prompts, max(1, len(prompts) // 5), len(free))
    if len(prompts) == 1 or count == 0:
        return list(prompts), list(prompts[:count])
    stride = len(free) // count
    held = set(free[stride - 1 :: stride][:count])
    learn = [prompt for prompt in prompts if prompt not in held]
    return learn, [prompt for prompt in prompts if prompt in held]


def take_prompts(
    prompts: Sequence[str], used: Sequence[str], count: int, *, lot: int | None = None
) -> list[str]:
    """`count` prompts, those never used first, then those used longest ago; fewer where there are fewer.

    Those never used come as they are listed, or with a `lot` in an order drawn by it: where a list is sorted,
    its first lines are of one kind. A prompt's place hangs on no other prompt.
    """
    last_use = {prompt: position for position, prompt in enumerate(used)}

    def place(prompt: str) -> tuple[int, bytes]:
        return last_use.get(prompt, -1), b"" if lot is None else _drawn(lot, prompt)

    return sorted(prompts, key=place)[:count]


# A page that follows a run asks for the order of all prompts again and again.
@lru_cache(maxsize=100_000)
def _drawn(lot: int, prompt: str) -> bytes:
    return hashlib.sha256(f"{lot}/{prompt}".encode()).digest()


def seed_request(
    settings: LoopSettings, model: ModelRef, prompts: Sequence[str], *, pairs_per_prompt: int = 1
) -> ProposeRequest:
    """Draw images for people to choose from, and name the pairs of them that differ most.

    ValueError where so many pairs of one prompt need more images of it than are compared at once.
    """
    images = settings.candidates_per_pair * pairs_per_prompt
    if images > MOST_CANDIDATES:
        raise ValueError(
            f"{pairs_per_prompt} pairs of one prompt need {images} images of it, and {MOST_CANDIDATES} is "
            "the most. Give more prompts, or draw fewer pairs at once."
        )
    return ProposeRequest(
        model=model,
        round=0,
        prompts=tuple(prompts),
        num_candidates=images,
        pairs_to_show=pairs_per_prompt,
        noise_seed=settings.noise_seed,
        sampling=settings.sampling,
        beta=settings.loss.beta,
    )


def propose_request(
    settings: LoopSettings,
    model: ModelRef,
    prompts: Sequence[str],
    *,
    number: int,
    policy: Round,
    parent: Round | None,
) -> ProposeRequest:
    """Draw candidates with `policy` and have it judge them, for round `number`.

    After a round that was not accepted, `number` is more than one beyond `policy`'s own.
    `parent` is the round that `policy` started from, for settings that score against it.
    """
    against = parent if settings.scoring.reference == "parent" else None
    return ProposeRequest(
        model=model,
        round=number,
        adapter=policy.sha256,
        reference_adapter=against.sha256 if against else None,
        prompts=tuple(prompts),
        num_candidates=settings.num_candidates,
        # Prompts come back when they run out; another noise seed then gives other images.
        noise_seed=settings.noise_seed + number,
        sampling=settings.sampling,
        scoring=settings.scoring,
        draw_strength=settings.draw_strength,
        choose=settings.choose,
        self_pairs_per_prompt=settings.self_pairs_per_prompt,
        min_margin=settings.min_margin * settings.loss.beta * (policy.human_margin or 0.0),
        beta=settings.loss.beta,
    )


def train_request(
    settings: LoopSettings,
    model: ModelRef,
    *,
    number: int,
    parent: Round | None,
    held_out_prompts: Sequence[str],
    pairs: Sequence[TrainingPair],
    self_fraction: float | None = None,
) -> TrainRequest:
    """Train round `number` from `parent`'s adapter, or from the base model.

    `self_fraction` is what somebody asks for; None is what suits `pairs`.
    """
    fraction = suited_fraction(settings, pairs) if self_fraction is None else self_fraction
    return TrainRequest(
        model=model,
        round=number,
        parent_adapter=parent.sha256 if parent else None,
        reference=settings.reference,
        lora=settings.lora,
        loss=settings.loss,
        mixup=settings.mixup.model_copy(update={"self_fraction": fraction}),
        optimisation=settings.optimisation.model_copy(update={"noise_seed": settings.noise_seed + number}),
        scoring=settings.scoring,
        sampling=settings.sampling,
        monitoring=settings.monitoring.model_copy(update={"prompts": tuple(held_out_prompts)}),
    )


def trainable(pairs: Iterable[TrainingPair]) -> int:
    """How many human pairs there are to learn from."""
    return sum(pair.source == "human" and not pair.held_out for pair in pairs)


def kept(pairs: int, settings: LoopSettings) -> int:
    """So many of a run's ranked self pairs go to review: the clearest, and at least one."""
    return max(1, round(settings.keep_self_pairs * pairs))


def suited_fraction(settings: LoopSettings, pairs: Sequence[TrainingPair]) -> float:
    """The settings' share of self pairs, or less where there are few."""
    own = sum(pair.source == "self" for pair in pairs)
    asked, times = settings.mixup.self_fraction, settings.mixup.most_times
    return mixup.suited_fraction(asked, times, human_pairs=trainable(pairs), self_pairs=own)


def require_enough_pairs(trainable: int, settings: LoopSettings) -> None:
    """ValueError where there are too few winner-loser pairs to train on."""
    if trainable < settings.min_human_pairs:
        raise ValueError(
            f"Training needs at least {settings.min_human_pairs} pairs with a winner and has {trainable}. "
            "Label more; ties, skips and pairs where both are bad are kept but do not count."
        )


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Where the loop stands."""

    name: StepName
    round: int


def next_step(
    settings: LoopSettings,
    *,
    trainable_pairs: int,
    drawn_pairs: int,
    rounds: Sequence[Round],
    policy: Round | None,
    proposed: int | None,
) -> NextStep:
    """What comes next.

    `trainable_pairs` human pairs with a winner that are not held out, of `drawn_pairs` seed pairs;
    `policy` is the round that the loop goes on from, None the base model, which judges nothing;
    `proposed` is the round whose candidates are ready and not yet trained on, if any.
    """
    if not rounds:
        if trainable_pairs >= settings.min_human_pairs:
            return NextStep(name="train", round=0)
        return NextStep(name="label" if drawn_pairs else "draw", round=0)
    number = rounds[-1].round + 1
    if policy is None:
        return NextStep(name="train", round=number)
    return NextStep(name="review" if proposed == number else "propose", round=number)


def export_request(
    settings: LoopSettings, model: ModelRef, policy: Round, *, title: str, merged: bool = False
) -> ExportRequest:
    """Write a round's adapter for other tools; with `merged` the whole pipeline as well."""
    return ExportRequest(
        model=model,
        round=policy.round,
        adapter=policy.sha256,
        title=title,
        facts=export_facts(policy),
        sampling=settings.sampling,
        merged=merged,
    )


def export_facts(policy: Round) -> dict[str, str | int | float | bool | None]:
    """Figures for the model card and for the page that shows what an export holds."""
    return {
        "round": policy.round,
        "human pairs": policy.human_pairs,
        "self pairs": policy.self_pairs,
        "ties held": policy.tie_pairs,
        "mixup ratio": policy.self_fraction,
        "judge accuracy on held-out human pairs": policy.judge_accuracy.in_words(),
        "share of its training that is kept": policy.kept,
        "diversity against base": policy.diversity_ratio,
        "saturation against base": policy.saturation_ratio,
        "gate": "accepted" if policy.accepted else "not accepted: " + " ".join(policy.reasons),
    }
