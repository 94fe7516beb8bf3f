"""What families of flow matching share: x_s = (1 - s) x_0 + s noise, and the denoiser predicts noise - x_0.

s is the noise level, 0 to 1; the denoiser is told it as a timestep, s times the scheduler's
`num_train_timesteps`. Knows no text encoder. B batch, C H W latent.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from sail.backbones.base import Solver
from sail.backbones.pipeline import PipelineBackbone

WITHOUT_NOISE = {"stochastic_sampling": False}
"""Told to the solver beside the model's own configuration: noise of its own would be none of our seeds'."""


class FlowEuler(FlowMatchEulerDiscreteScheduler):
    """diffusers' own, with what its other schedulers have."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample


class FlowMatching(PipelineBackbone):
    """A pipeline with the flow matching scheduler that it was made with."""

    patch = 2

    def __init__(self, pipeline: DiffusionPipeline, device: torch.device) -> None:
        super().__init__(pipeline, device)
        self._schedule = FlowEuler.from_config(pipeline.scheduler.config)
        self.num_train_timesteps = int(self._schedule.config.num_train_timesteps)

    def timesteps(self, drawn_B: Tensor, shape: tuple[int, ...]) -> Tensor:
        # The scheduler's own table, which a fixed shift has gone into; from the least noise to the most.
        level_T = self._schedule.sigmas.flip(0).to(drawn_B.device)
        level_B = level_T[drawn_B]
        if self._schedule.config.use_dynamic_shifting:
            level_B = self._schedule.time_shift(self._shift(shape), 1.0, level_B)
        return level_B * self.num_train_timesteps

    def _shift(self, shape: tuple[int, ...]) -> float:
        """mu, which grows with the number of latent patches."""
        config, (height, width) = self._schedule.config, shape[-2:]
        patches = (height // self.patch) * (width // self.patch)
        lengths = config.base_image_seq_len, config.max_image_seq_len
        return calculate_shift(patches, *lengths, config.base_shift, config.max_shift)

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        level_B111 = (timesteps_B / self.num_train_timesteps).view(-1, 1, 1, 1)
        return (1 - level_B111) * latents_BCHW + level_B111 * noise_BCHW

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return noise_BCHW - latents_BCHW

    def solver(self, name: str, steps: int, shape: tuple[int, ...]) -> Solver:
        if name != "auto":
            raise ValueError(
                f"{self.pipeline_class.__name__} has no solver {name}: flow matching goes by Euler steps. "
                "Set sampling.solver to auto."
            )
        solver = FlowEuler.from_config(self._pipeline.scheduler.config, **WITHOUT_NOISE)
        dynamic = solver.config.use_dynamic_shifting
        mu = {"mu": self._shift(shape)} if dynamic else {}
        solver.set_timesteps(**self._levels(steps), **mu, device=self.device)
        return solver

    def _levels(self, steps: int) -> dict[str, Any]:
        """Where the solver steps before the shift, as arguments of `set_timesteps`."""
        return {"num_inference_steps": steps}
