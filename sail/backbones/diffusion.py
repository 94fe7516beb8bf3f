"""What families with a noise schedule share: a prediction of the noise or the velocity.

Knows no text encoder. B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
)
from torch import Tensor

from sail.backbones.base import Solver
from sail.backbones.pipeline import PipelineBackbone

Overrides = dict[str, Any]
"""What a scheduler is told beside the configuration of the model's own."""


def _without_noise(own: Mapping[str, Any]) -> Overrides:
    """Some models' configurations ask for noise, which no seed of ours would reach."""
    kind = own.get("algorithm_type", "dpmsolver++").removeprefix("sde-")
    # Or of another solver, such as DEIS.
    return {"algorithm_type": kind if kind in ("dpmsolver", "dpmsolver++") else "dpmsolver++"}


def _unbounded(own: Mapping[str, Any]) -> Overrides:
    """Latents, unlike pixels, have no bounds; a configuration that says nothing of clipping would get it."""
    return {"clip_sample": False, "thresholding": False}


SOLVERS: dict[str, tuple[type[Any], Callable[[Mapping[str, Any]], Overrides]]] = {
    "auto": (DPMSolverMultistepScheduler, _without_noise),
    "dpm++": (DPMSolverMultistepScheduler, _without_noise),
    "ddim": (DDIMScheduler, _unbounded),
    "ddpm": (DDPMScheduler, _unbounded),
}


class Diffusion(PipelineBackbone):
    """x_t = a_t x_0 + b_t noise, with the pipeline's own schedule.

    ValueError where that is none of betas.
    """

    def __init__(self, pipeline: DiffusionPipeline, device: torch.device) -> None:
        super().__init__(pipeline, device)
        if "beta_schedule" not in pipeline.scheduler.config:
            raise ValueError(
                f"The model's scheduler, {type(pipeline.scheduler).__name__}, has no beta schedule, and "
                f"{self.pipeline_class.__name__} is known with no other. Take a model with one."
            )
        self._schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.num_train_timesteps = int(self._schedule.config.num_train_timesteps)

    def timesteps(self, drawn_B: Tensor, shape: tuple[int, ...]) -> Tensor:
        return drawn_B

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return self._schedule.add_noise(latents_BCHW, noise_BCHW, timesteps_B)

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        kind = self._schedule.config.prediction_type
        if kind == "epsilon":
            return noise_BCHW
        if kind == "v_prediction":
            return self._schedule.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        raise ValueError(f"Prediction type {kind} is not known. Known: epsilon, v_prediction.")

    def solver(self, name: str, steps: int, shape: tuple[int, ...]) -> Solver:
        kind, told = SOLVERS[name]
        own = self._pipeline.scheduler.config
        scheduler = kind.from_config(own, **told(own))
        scheduler.set_timesteps(steps, device=self.device)
        # With too many steps some repeat a noise level, and then divide by zero, or go past the last one.
        levels = scheduler.timesteps
        if len(levels.unique()) < len(levels) or levels.max() >= self.num_train_timesteps:
            raise ValueError(
                f"This model has {self.num_train_timesteps} noise levels, and {kind.__name__} cannot take "
                f"{steps} steps through them as it spaces them. Lower sampling.steps."
            )
        return scheduler
