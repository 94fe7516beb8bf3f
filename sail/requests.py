"""What a run is asked to do. Knows no tensor and computes nothing."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

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
    Prompt,
    Sampling,
    Scoring,
    require_candidates,
)
from sail.model_ref import ModelRef

SCHEMA_VERSION: Final = 1


class _Request(Config):
    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelRef
    round: int = Field(0, ge=0)


class ProposeRequest(_Request):
    """Draw candidates for prompts; with `scoring`, judge them and rank self pairs."""

    kind: Literal["propose"] = "propose"
    adapter: str | None = None
    """sha256 of the policy's adapter, which lies in inputs/adapters/; None draws from the base model."""
    reference_adapter: str | None = None
    """sha256 of the reference to score against; None is the base model."""
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    num_candidates: int = Field(8, ge=2, le=MOST_CANDIDATES)
    noise_seed: int = 0
    sampling: Sampling = Sampling()
    scoring: Scoring | None = None
    draw_strength: DrawStrength = 1.0
    choose: Choose = "best_worst"
    self_pairs_per_prompt: int = Field(1, ge=1)
    """With `best_worst`: best against worst, second best against second worst, and so on."""
    min_margin: float = Field(0.0, ge=0)
    """In nats: pairs with a smaller one are no self pairs."""
    pairs_to_show: int = Field(0, ge=0)
    """So many pairs of a prompt's candidates are for people, the most different ones first."""
    beta: float = Field(2000.0, gt=0)
    """Scale of the implicit reward; the beta that the adapter was trained with."""

    @model_validator(mode="after")
    def _enough(self) -> ProposeRequest:
        require_candidates("pairs_to_show", self.pairs_to_show, self.num_candidates)
        own = self.self_pairs_per_prompt if self.scoring else 0
        require_candidates("self_pairs_per_prompt", own, self.num_candidates)
        return self

    @model_validator(mode="after")
    def _judge(self) -> ProposeRequest:
        if self.scoring is not None and self.adapter == self.reference_adapter:
            raise ValueError(
                "A policy scored against itself rewards every image with 0. Give another reference."
            )
        return self


class TrainRequest(_Request):
    """Optimise one adapter on pairs.jsonl, then measure it and decide whether it is accepted."""

    kind: Literal["train"] = "train"
    parent_adapter: str | None = None
    """sha256 of the adapter to start from, and, with reference `parent`, to be measured against."""
    reference: Literal["parent", "base"] = "parent"
    lora: Lora = Lora()
    loss: Loss = Loss()
    mixup: Mixup = Mixup()
    optimisation: Optimisation = Optimisation()
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()
    checkpoint_every: int = Field(25, ge=1)

    @property
    def reuses_judged_draws(self) -> bool:
        """Whether it learns from self pairs on the judge's draws, where that judged with these settings."""
        # Of the reference, or of the judge itself: its parent.
        known = self.scoring.reference == "base" or self.reference == "parent"
        same_timesteps = self.optimisation.timesteps == self.scoring.timesteps
        judged = self.optimisation.self_pair_draws == "judged"
        return judged and known and self.scoring.shared and same_timesteps


class EvaluateRequest(_Request):
    """Measure one adapter: judge accuracy on the held-out pairs of pairs.jsonl, diversity, saturation."""

    kind: Literal["evaluate"] = "evaluate"
    adapter: str | None = None
    beta: float = Field(2000.0, gt=0)
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()


class ExportRequest(_Request):
    """Write the adapter for other tools, with a model card."""

    kind: Literal["export"] = "export"
    adapter: str
    title: str = "A model aligned with SAIL"
    facts: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Figures for the model card: human and self pairs, agreement, gate, hashes of data."""
    sampling: Sampling = Sampling()
    """How its images were drawn; the model card says how to draw such with diffusers."""
    merged: bool = False
    """Also write the whole pipeline, in float32, with the adapter merged into its weights."""


class Look(Config):
    """One way to draw: the base model, or an adapter at some strength."""

    adapter: str | None = None
    """sha256 of an adapter, which lies in inputs/adapters/; None is the base model."""
    strength: float = Field(1.0, ge=0, le=2)
    """Factor on what the adapter adds: 0 is the base model again, 1 the adapter itself."""


class CompareRequest(_Request):
    """Draw every prompt in several looks from the same starting noise."""

    kind: Literal["compare"] = "compare"
    looks: tuple[Look, ...] = Field(min_length=1, max_length=32)
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    per_prompt: int = Field(1, ge=1)
    """Images of a prompt in each look. Candidate `look * per_prompt + index` starts from the noise of
    `index`, in every look."""
    noise_seed: int = 0
    sampling: Sampling = Sampling()


Request = Annotated[
    ProposeRequest | TrainRequest | EvaluateRequest | ExportRequest | CompareRequest,
    Field(discriminator="kind"),
]
Kind = Literal["propose", "train", "evaluate", "export", "compare"]
