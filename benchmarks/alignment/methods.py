"""What each method of the table trains. Knows no taste and no figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from annotator.rows import Order
from sail.loop import Rounds
from sail.model_ref import ModelRef
from sail.records import TrainingPair
from sail.settings import LoopSettings

SEED_ROUNDS = 1
SELF_ROUNDS = 2
"""Rounds of the table after the one on the seed pairs: three in all, after which little was gained."""
MANY_ROUNDS = 8
"""Self-annotated rounds of a loop that is left running."""
MANY_LABELS, FEW_LABELS = 1600, 96

Train = Callable[[Rounds, Sequence[TrainingPair]], None]
Changes = Mapping[str, Any]


def changed(settings: LoopSettings, changes: Changes) -> LoopSettings:
    """`settings` with other values, checked. KeyError where there is no such setting."""
    values = settings.model_dump()
    for name, value in changes.items():
        *path, last = name.split(".")
        place = values
        for part in path:
            place = place[part]
        if last not in place:
            raise KeyError(f"There is no setting {name}.")
        place[last] = value
    return LoopSettings.model_validate(values)


def settings_of(method: Method, model: ModelRef, size: Changes) -> LoopSettings:
    """The model's own settings at the table's size, with the method's changes."""
    return changed(LoopSettings.for_model(model), {**size, **method.changes})


def nothing(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """The base model."""


def once(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """One training on all pairs."""
    rounds.train(trained_on_all(pairs), parent=None)


def in_rounds(
    rounds: Rounds, pairs: Sequence[TrainingPair], *, count: int = SEED_ROUNDS + SELF_ROUNDS
) -> None:
    """As many rounds as SAIL's, under the same gate, on the human pairs alone."""
    pairs = trained_on_all(pairs)
    for _ in range(count):
        rounds.train(pairs, parent=rounds.current)


def sail(rounds: Rounds, pairs: Sequence[TrainingPair], *, self_rounds: int = SELF_ROUNDS) -> None:
    """The loop of `python -m sail loop`: rounds that the gate refuses are not gone on from."""
    rounds.train(pairs, parent=None)
    for _ in range(self_rounds):
        policy = rounds.current
        if policy is None:
            return
        rounds.train([*pairs, *rounds.self_annotated(policy)], parent=policy)


def replayed(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """Self pairs of earlier rounds stay among those that are learned from."""
    rounds.train(pairs, parent=None)
    found: list[TrainingPair] = []
    for _ in range(SELF_ROUNDS):
        policy = rounds.current
        if policy is None:
            return
        found += rounds.self_annotated(policy)
        rounds.train([*pairs, *found], parent=policy)


def without_a_gate(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """As published: every round goes on from the last, whatever came of it, and no label is held out."""
    pairs = trained_on_all(pairs)
    rounds.train(pairs, parent=None)
    for _ in range(SELF_ROUNDS):
        policy = rounds.done[-1]
        rounds.train([*pairs, *rounds.self_annotated(policy)], parent=policy)


def eight_rounds(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """Left running: does the gate stop it before it harms?"""
    sail(rounds, pairs, self_rounds=MANY_ROUNDS)


def many_rounds_on_human_pairs(rounds: Rounds, pairs: Sequence[TrainingPair]) -> None:
    """As long without self pairs: do the same few labels have more to give?"""
    in_rounds(rounds, pairs, count=SEED_ROUNDS + MANY_ROUNDS)


def trained_on_all(pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    """Without a judge or a gate there is nothing to hold pairs out for."""
    return [pair.model_copy(update={"held_out": False}) for pair in pairs]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table."""

    train: Train = sail
    labels: int = FEW_LABELS
    gated: bool = True
    """The gate decides which adapter is measured; otherwise it is the last, whatever the gate says."""
    steps_of_rounds: int = 1
    """Its one training has as many steps as so many rounds of the others."""
    changes: Changes = field(default_factory=dict)
    """Settings by their dotted name that differ from the model's own."""
    flipped: float = 0.0
    """Share of the labels with a winner that are turned round."""
    left_bias: float = 0.0
    """Share of labels that say "left" whatever is shown."""
    second_taste: bool = False
    """Every other label is given by somebody with another taste."""
    unsure_ties: bool = False
    """Where two images are nearly alike the person is unsure whether they say tie."""
    checked: int = 0
    """So many of each round's self pairs, the least certain, the same person looks at."""
    shares: tuple[float, ...] = ()
    """Share of self pairs in each round that has any; the settings' where none is named."""
    order: Order = "random"
    """In which pairs are asked about."""

    def asked(self) -> dict[str, Any]:
        """What a unit of it hangs on besides its settings."""
        asked: dict[str, Any] = {
            "train": self.train.__name__,
            "gated": self.gated,
            "labels": self.labels,
            "flipped": self.flipped,
            "left_bias": self.left_bias,
            "second_taste": self.second_taste,
        }
        # Units with faults that were drawn by lot are of another method.
        faulty = self.flipped or self.left_bias or self.second_taste
        if faulty:
            asked["faults"] = "counted"
        if self.unsure_ties:
            asked["unsure_ties"] = True
        if self.checked:
            asked["checked"] = self.checked
        if self.shares:
            asked["shares"] = list(self.shares)
        if self.order != "random":
            asked["order"] = self.order
        return asked

    @property
    def proposes(self) -> bool:
        """Whether it has the policy judge images of its own."""
        return self.train not in (nothing, once, in_rounds, many_rounds_on_human_pairs)

    @property
    def holds_out(self) -> bool:
        """Whether it keeps labels from training, for its judge to be measured on."""
        return self.train in (sail, replayed, eight_rounds)


PAPER: Changes = {
    "loss.objective": "dpo",
    "loss.winner_penalty": 0.0,
    "loss.winner_pull": 0.0,
    "loss.hold_ties": 0.0,
    "scoring.average": "mean",
    "scoring.shared": False,
    "draw_strength": 1.0,
    "self_pairs_per_prompt": 1,
    "reference": "parent",
    "mixup.self_fraction": 0.25,
    "mixup.most_times": None,
    "keep_self_pairs": 1.0,
    "min_margin": 0.0,
    "optimisation.self_pair_draws": "new",
    "monitoring.halvings": 0,
    "optimisation.learning_rate": 6e-5,
}
"""As published, but for beta and rate, which hang on the model: the starter's beta, and the largest of the
rates tried on two tuning tastes at which prompt following stays within 3 points of base."""

TIES_LEFT_OUT: Changes = {"loss.hold_ties": 0.0}
DPO_LOSS: Changes = {
    "loss.objective": "dpo",
    "loss.winner_penalty": 1.0,
    "loss.winner_pull": 0.5,
    "reference": "base",
}
"""What the starter trained with before its losers were mirrored: Diffusion-DPO, with what keeps winners from
getting worse."""
PLAIN_DPO: Changes = {**DPO_LOSS, "loss.winner_penalty": 0.0, "loss.winner_pull": 0.0}
"""As published."""
SLOW: Changes = {"optimisation.learning_rate": 4e-5}
"""The largest of the rates tried (5e-4, 2e-4, 1e-4, 5e-5, 4e-5, 3.5e-5, 2.5e-5) at which `PLAIN_DPO` on all
labels keeps prompt following within 3 points of base's in the mean of the tuning tastes."""
WINNERS_ALONE: Changes = {
    "loss.objective": "winner",
    "loss.winner_penalty": 0.0,
    "loss.winner_pull": 0.0,
    # The pull of winners alone has no beta: ties would hold ten times as hard as beside a DPO loss.
    **TIES_LEFT_OUT,
}
ANY_MARGIN: Changes = {"min_margin": 0.0}
ALL_KEPT: Changes = {"keep_self_pairs": 1.0, **ANY_MARGIN}
VARIED: Changes = {"monitoring.min_diversity_ratio": 0.85}
NEW_DRAWS: Changes = {"optimisation.self_pair_draws": "new"}
NO_MIXUP: Changes = {"mixup.self_fraction": 1.0}


METHODS: dict[str, Method] = {
    "base": Method(train=nothing, labels=0),
    "dpo_100": Method(
        train=once,
        labels=MANY_LABELS,
        steps_of_rounds=SEED_ROUNDS + SELF_ROUNDS,
        changes={**DPO_LOSS, **TIES_LEFT_OUT},
    ),
    "dpo_100_plain": Method(
        train=once,
        labels=MANY_LABELS,
        steps_of_rounds=SEED_ROUNDS + SELF_ROUNDS,
        changes={**PLAIN_DPO, **TIES_LEFT_OUT},
    ),
    "dpo_100_plain_slow": Method(
        train=once,
        labels=MANY_LABELS,
        steps_of_rounds=SEED_ROUNDS + SELF_ROUNDS,
        changes={**PLAIN_DPO, **TIES_LEFT_OUT, **SLOW},
    ),
    "dpo_100_in_rounds": Method(train=in_rounds, labels=MANY_LABELS),
    "dpo_6": Method(train=in_rounds),
    "sft_6": Method(train=in_rounds, changes=WINNERS_ALONE),
    "sail_6": Method(),
    "sail_6_half_labels": Method(labels=FEW_LABELS // 2),
    "dpo_6_half_labels": Method(train=in_rounds, labels=FEW_LABELS // 2),
    "sail_6_paper": Method(train=without_a_gate, gated=False, changes=PAPER),
    "sail_6_no_mixup": Method(changes=NO_MIXUP),
    "sail_6_random_pairs": Method(changes={"choose": "random", "self_pairs_per_prompt": 1, **ALL_KEPT}),
    "sail_6_checked": Method(checked=20),
    "sail_6_rising_share": Method(shares=(0.5, 0.9)),
    "sail_6_falling_share": Method(shares=(0.9, 0.5)),
    "sail_6_replayed": Method(train=replayed),
    "sail_6_asked_diverse": Method(order="diverse"),
    "sail_6_asked_uncertain": Method(order="uncertain"),
    "sail_6_all_pairs": Method(changes=ALL_KEPT),
    "sail_6_ties_left_out": Method(changes=TIES_LEFT_OUT),
    "dpo_6_ties_left_out": Method(train=in_rounds, changes=TIES_LEFT_OUT),
    "sail_6_dpo_loss": Method(changes=DPO_LOSS),
    "dpo_6_dpo_loss": Method(train=in_rounds, changes=DPO_LOSS),
    "sail_6_any_margin": Method(changes=ANY_MARGIN),
    "sail_6_independent_draws": Method(changes={"scoring.shared": False, **NEW_DRAWS}),
    "sail_6_new_draws": Method(changes=NEW_DRAWS),
    "sail_6_own_images": Method(changes={"draw_strength": 1.0}),
    "sail_6_base_images": Method(changes={"draw_strength": 0.0}),
    "sail_6_varied": Method(changes=VARIED),
    "dpo_6_varied": Method(train=in_rounds, changes=VARIED),
    # Other numbers of labels, with and without self pairs.
    "sail_24_labels": Method(labels=24),
    "dpo_24_labels": Method(train=in_rounds, labels=24),
    "sail_192_labels": Method(labels=192),
    # Robustness.
    "sail_6_flipped_10": Method(flipped=0.1),
    "sail_6_flipped_20": Method(flipped=0.2),
    "sail_6_flipped_20_smoothed": Method(flipped=0.2, changes={"loss.label_smoothing": 0.2}),
    "sail_6_flipped_30": Method(flipped=0.3),
    "sail_6_left_bias": Method(left_bias=0.3),
    "sail_6_two_annotators": Method(second_taste=True),
    "sail_6_unsure_ties": Method(unsure_ties=True),
    "dpo_6_unsure_ties": Method(train=in_rounds, unsure_ties=True),
    "sail_6_eight_rounds": Method(train=eight_rounds),
    "dpo_6_eight_rounds": Method(train=many_rounds_on_human_pairs),
    "sail_6_eight_rounds_no_mixup": Method(train=eight_rounds, changes=NO_MIXUP),
}


def method_named(name: str) -> Method:
    """The method of that name; "sail_6 draw_strength=0" is `sail_6` with a setting that differs, for trials.

    KeyError where there is none.
    """
    known, *changes = name.split()
    pairs = [change.partition("=") for change in changes]
    own = {setting: _value(value) for setting, _, value in pairs}
    return replace(METHODS[known], changes={**METHODS[known].changes, **own})


def _value(text: str) -> Any:
    """JSON, or a word as it stands."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


CORE = ("base", "dpo_100", "dpo_6", "sail_6", "sail_6_paper")
"""On all tastes in five repeats; the others in three, or once:"""
ON_ALL_TASTES = (
    *CORE, "dpo_100_in_rounds", "sail_6_half_labels", "dpo_6_dpo_loss", "dpo_100_plain",
    "dpo_100_plain_slow",
)  # fmt: skip
"""The others on two."""
ONCE = (
    "sail_6_all_pairs", "sail_6_any_margin", "sail_6_ties_left_out", "dpo_6_ties_left_out",
    "sail_6_dpo_loss", "dpo_6_dpo_loss", "sail_6_new_draws", "sail_6_own_images", "sail_6_base_images",
    "sail_6_varied", "dpo_6_varied", "dpo_100_plain", "dpo_100_plain_slow",
)  # fmt: skip
"""Settings that were chosen on the tuning tastes, and Diffusion-DPO without anything added."""
