"""What the tests of the engine share: how its runs and commands are asked for, and what a policy draws."""

from __future__ import annotations

from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from sail import backbones
from sail.__main__ import app
from sail.config import Lora, Mixup, Monitoring, Optimisation, Sampling, Scoring
from sail.model_ref import ModelRef
from sail.policy import Policy
from sail.requests import TrainRequest
from sail.sampling import draw

PROMPTS = ("a red fox", "a blue fox", "a small pizza", "a big pizza")
QUICK = Sampling(steps=3, chunk=6)


def train_request(model: ModelRef, **changes) -> TrainRequest:
    steps = changes.pop("steps", 6)
    rate = changes.pop("learning_rate", 1e-2)
    return TrainRequest(
        model=model,
        lora=Lora(rank=2),
        optimisation=Optimisation(steps=steps, batch_pairs=4, micro_batch_pairs=3, learning_rate=rate),
        scoring=Scoring(draws=3),
        sampling=QUICK,
        monitoring=Monitoring(prompts=("a fox", "a pizza"), per_prompt=2, preview_prompts=1),
        checkpoint_every=2,
        **changes,
    )


def holding_ties(request: TrainRequest, strength: float) -> TrainRequest:
    return request.model_copy(update={"loss": request.loss.model_copy(update={"hold_ties": strength})})


def on_judged_draws(request: TrainRequest, **changes) -> TrainRequest:
    """Half of the pairs are self pairs, learned from on the draws that they were judged on."""
    optimisation = request.optimisation.model_copy(update={"self_pair_draws": "judged", **changes})
    return request.model_copy(update={"optimisation": optimisation, "mixup": Mixup(self_fraction=0.5)})


def sail(*arguments: object) -> Result:
    """The command in this process: importing the libraries anew each time would take most of the test."""
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def policy_of(model: ModelRef, adapter: Path | None = None) -> Policy:
    policy = Policy(backbones.load(model))
    if adapter:
        policy.load("policy", adapter)
    return policy


def drawn_latents(policy: Policy, prompts=PROMPTS, **changes) -> torch.Tensor:
    options = {"per_prompt": 2, "noise_seed": 0, "sampling": QUICK, **changes}
    return torch.cat([drawn.latents_NCHW for drawn in draw(policy, prompts, **options)])
