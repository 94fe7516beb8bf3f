"""What a judge leaves beside the candidates it judged, so that nobody computes it again. Knows no optimiser.

K draws of a prompt, C H W latent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from sail.backbones import Backbone
from sail.config import Scoring
from sail.files import open_latents
from sail.records import TrainingPair
from sail.requests import ProposeRequest, TrainRequest
from sail.reward import bank_of

BothErrors = tuple[float, float]
"""Denoising errors of winner and loser."""
_SAID = "judged"


def told(request: ProposeRequest, backbone: Backbone) -> dict[str, str]:
    """For a candidates file: who judged, against what, on which draws. Empty where nobody judged."""
    if request.scoring is None:
        return {}
    said = request.model_dump(mode="json", include={"model", "adapter", "reference_adapter", "scoring"})
    return {_SAID: json.dumps({**said, "computed_in": backbone.precision})}


@dataclass(frozen=True)
class JudgedDraws:
    """The draws that a pair was judged on, and the training's reference on them."""

    prompt: str
    scoring: Scoring
    errors: list[BothErrors]
    """The reference's, on each of the K."""

    def __len__(self) -> int:
        return len(self.errors)

    def draw(self, k: int, shape: tuple[int, int, int], num_train_timesteps: int) -> tuple[Tensor, Tensor]:
        """Timestep () and noise (C, H, W) of draw `k`; made anew each time, since all of them fill memory."""
        bank = bank_of(self.prompt, 1, shape, num_train_timesteps, self.scoring)
        return bank.timesteps_NK[0, k], bank.noise_NKCHW[0, k]


def judged_draws(
    run: Path, pair: TrainingPair, request: TrainRequest, backbone: Backbone
) -> JudgedDraws | None:
    """What is known of a pair, or None where it was judged otherwise than training asks about it."""
    if not request.reuses_judged_draws or pair.winner.file != pair.loser.file:
        return None
    with open_latents(run / pair.winner.file) as file:
        said: Mapping[str, str] = file.metadata() or {}
        if _SAID not in said:
            return None
        by = json.loads(said[_SAID])
        # "auto" is another precision on another machine.
        same_model = by["model"] == request.model.model_dump(mode="json")
        if not same_model or by["computed_in"] != backbone.precision:
            return None
        reference_NK, gain_NK = file.get_tensor("reference_errors"), file.get_tensor("gains")
    try:
        scoring = Scoring.model_validate(by["scoring"])
    except ValidationError:  # Of another version.
        return None
    if not scoring.shared or scoring.timesteps != request.optimisation.timesteps:
        return None
    wanted = request.parent_adapter if request.reference == "parent" else None
    if wanted == by["reference_adapter"]:
        error_NK = reference_NK
    elif wanted == by["adapter"]:
        error_NK = reference_NK - gain_NK
    else:
        return None
    winner_K, loser_K = (error_NK[ref.row].tolist() for ref in (pair.winner, pair.loser))
    return JudgedDraws(pair.prompt, scoring, list(zip(winner_K, loser_K, strict=True)))
