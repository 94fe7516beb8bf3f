"""The settings of a whole loop. Knows no tensor and computes nothing.

A model may bring its own (`LoopSettings.for_model`); the defaults are for one that brings none, and
`LoopSettings.paper()` has the paper's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from sail.config import (
    MOST_CANDIDATES,
    Choose,
    Config,
    DrawStrength,
    Lora,
    Loss,
    Mixup,
    Monitoring,
    Optimisation,
    Sampling,
    Scoring,
    first_fault,
    require_candidates,
)
from sail.model_ref import ModelRef

OWN_SETTINGS: Final = "sail.json"
"""Beside model_index.json: the settings of the loop that were found to work on that model."""
MOST_PROMPTS: Final = 1_000_000
"""In a round."""


def _merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        old = values.get(key)
        merged[key] = _merged(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return merged


def _bounded(values: Any, error: ValidationError) -> Any:
    """The largest that there may be in the place of what is found too large."""
    values = deepcopy(values)
    for fault in error.errors():
        if fault["type"] == "less_than_equal":
            *way, last = fault["loc"]
            reduce(getitem, way, values)[last] = fault["ctx"]["le"]
    return values


def _require_used(changes: Mapping[str, Any]) -> None:
    """ValueError where a value would be left unused without a word. What was stored of them is still read."""
    of_each_round = (
        (
            "monitoring",
            "prompts",
            "Held-out prompts are taken from the list of prompts. Set monitor_prompts, how many.",
        ),
        ("optimisation", "noise_seed", "It is made of noise_seed in every round. Set that one."),
    )
    for part, name, instead in of_each_round:
        own = changes.get(part)
        if isinstance(own, Mapping) and own.get(name):
            raise ValueError(f"{part}.{name} is no setting of the loop. {instead}")
    lora = changes.get("lora")
    alpha = lora.get("alpha") if isinstance(lora, Mapping) else None
    if isinstance(alpha, int) and alpha < 1:
        raise ValueError(f"lora.alpha must be at least 1, or null for the rank, got {alpha}.")


class LoopSettings(Config):
    """One project's settings for the whole loop."""

    candidates_per_pair: int = Field(4, ge=2, le=MOST_CANDIDATES)
    """Images drawn for each pair that people are shown: of these the two that differ most."""
    prompts_per_round: int = Field(64, ge=1, le=MOST_PROMPTS)
    later_prompts_per_round: int | None = Field(None, ge=1, le=MOST_PROMPTS)
    """From the second self-annotated round on; None: as many as in the first."""
    num_candidates: int = Field(8, ge=2, le=MOST_CANDIDATES)
    held_out_every: int = Field(10, ge=2)
    """Every so many human pairs one is held out, for the judge to be measured on; of imported pairs those of
    one caption in so many. Of few labels each counts more in training: with one in five a loop fell short of
    the same steps on all of them."""
    min_human_pairs: int = Field(8, ge=2)
    """Fewer winner-loser pairs than this are too few to train."""
    draw_strength: DrawStrength = 1.0
    choose: Choose = "best_worst"
    self_pairs_per_prompt: int = Field(1, ge=1)
    """Best against worst of a prompt's candidates, second best against second worst, and so on inwards."""
    keep_self_pairs: float = Field(1.0, gt=0, le=1)
    """Share of the ranked self pairs, of those that `min_margin` leaves, that goes to review; the least
    certain are dropped."""
    min_margin: float = Field(0.0, ge=0)
    """A share of the median size of the judge's margins of the human pairs that it learned from: what is less
    clear to it is no self pair. Where a taste is fulfilled there are few."""
    monitor_prompts: int = Field(16, ge=0)
    reference: Literal["parent", "base"] = "parent"
    lora: Lora = Lora()
    loss: Loss = Loss()
    mixup: Mixup = Mixup()
    optimisation: Optimisation = Optimisation()
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()
    noise_seed: int = Field(0, gt=-(2**62), lt=2**62)

    @model_validator(mode="after")
    def _enough_candidates(self) -> LoopSettings:
        require_candidates("self_pairs_per_prompt", self.self_pairs_per_prompt, self.num_candidates)
        return self

    @model_validator(mode="after")
    def _one_unit(self) -> LoopSettings:
        if self.min_margin > 0 and self.scoring.reference == "parent":
            raise ValueError(
                "Margins against the parent do not compare with human pairs', which are against base. "
                "Set min_margin to 0, or scoring.reference to base."
            )
        return self

    def changed(self, changes: Mapping[str, Any]) -> LoopSettings:
        """With some values replaced, nested ones too. pydantic's ValidationError for wrong ones, ValueError
        for those that no round would use.

        So many prompts a round holds for all rounds, unless later ones are given as well.
        """
        _require_used(changes)
        if "prompts_per_round" in changes:
            changes = {"later_prompts_per_round": None, **changes}
        return LoopSettings.model_validate(_merged(self.model_dump(mode="json"), changes))

    @classmethod
    def stored(cls, values: Any) -> LoopSettings:
        """As a project keeps them, without what another version kept there besides.

        Earlier versions had fewer bounds: a number that is too large is read as the largest there may be, so
        that no project is lost to it. pydantic's ValidationError for what else is wrong.
        """
        try:
            return cls.model_validate(values, extra="ignore")
        except ValidationError as error:
            return cls.model_validate(_bounded(values, error), extra="ignore")

    def prompts_in(self, number: int) -> int:
        """How many prompts the model judges its own images of for round `number`, 1 being the first."""
        later = self.later_prompts_per_round
        return self.prompts_per_round if number <= 1 or later is None else later

    @classmethod
    def for_model(cls, model: ModelRef) -> LoopSettings:
        """What was found to work on this model: the values in its folder's sail.json; the defaults for the
        rest, and drawn as its family is.

        The right beta depends on how a model's errors are scaled, and the rest on beta, so that settings
        belong to a model as a sampler's do. ValueError where the file is not one of settings.
        """
        defaults = cls(sampling=model.sampling)
        file = Path(model.source) / OWN_SETTINGS
        # os.path, since pathlib raises on names that are too long.
        if not os.path.isfile(file):
            return defaults
        found = file.read_bytes()
        try:
            cls.model_validate_json(found)
            return defaults.changed(json.loads(found))
        except ValidationError as error:
            raise ValueError(f"{file} holds no settings of the loop: {first_fault(error)}") from error
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def paper(cls) -> LoopSettings:
        """What arXiv 2602.05380 states for SD1.5; what it leaves open is as in the defaults."""
        return cls(
            prompts_per_round=10_000,
            later_prompts_per_round=20_000,
            # Of 50,000 pairs 500 tell how good the judge is; the paper trains on all.
            held_out_every=100,
            loss=Loss(beta=5000),
            scoring=Scoring(average="mean"),
            sampling=Sampling(solver="ddpm", steps=50, guidance=7.5),
            mixup=Mixup(most_times=None),
            optimisation=Optimisation(batch_pairs=128, self_pair_draws="new"),
            monitoring=Monitoring(halvings=0),
        )
