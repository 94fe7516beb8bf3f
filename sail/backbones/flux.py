"""Flux.1: a transformer on packed latents, a pooled CLIP embedding, a T5, and guidance distilled into it.

Knows no adapter, pair or reward. B batch, C H W latent, L packed patches, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from torch import Tensor

from sail.backbones.base import Conditioning
from sail.backbones.flow_matching import FlowMatching
from sail.backbones.pipeline import ATTENTION

GUIDANCE = 3.5
"""What the denoiser is told when it learns and judges: FluxPipeline's own default."""
TOKENS_DEV, TOKENS_SCHNELL = 512, 256
"""Of T5, as the two were published: diffusers' own default is dev's for both."""


class Flux(FlowMatching):
    """A loaded Flux.1 pipeline: dev is told the guidance as a number, schnell knows none."""

    pipeline_class = FluxPipeline
    part = "transformer"
    lora_targets = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    distilled = True

    @property
    def _is_dev(self) -> bool:
        return bool(self._config.guidance_embeds)

    @property
    def most_tokens(self) -> int:  # type: ignore[override]
        return TOKENS_DEV if self._is_dev else TOKENS_SCHNELL

    def _encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeds, pooled, _ = self._pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            max_sequence_length=self.most_tokens,
        )
        encoded = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        if self._is_dev:
            encoded["guidance"] = torch.full((len(prompts),), GUIDANCE, device=self.device)
        return encoded

    def at_guidance(self, conditioning: Conditioning, guidance: float) -> Conditioning:
        if "guidance" not in conditioning:
            return conditioning
        return {**conditioning, "guidance": torch.full_like(conditioning["guidance"], guidance)}

    def _denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        batch, channels, height, width = noisy_BCHW.shape
        embeds = conditioning["prompt_embeds"]
        prediction_BLC = self.denoiser(
            self._pipeline._pack_latents(noisy_BCHW, batch, channels, height, width),
            timestep=timesteps_B / self.num_train_timesteps,
            guidance=conditioning.get("guidance"),
            pooled_projections=conditioning["pooled_prompt_embeds"],
            encoder_hidden_states=embeds,
            # Positions, which are the same for every image of a batch: they have no batch axis.
            txt_ids=embeds.new_zeros(embeds.shape[1], 3),
            img_ids=self._pipeline._prepare_latent_image_ids(
                batch, height // self.patch, width // self.patch, torch.device("cpu"), embeds.dtype
            ).to(embeds.device, non_blocking=True),
            return_dict=False,
        )[0]
        factor = self._pipeline.vae_scale_factor
        return self._pipeline._unpack_latents(prediction_BLC, height * factor, width * factor, factor)

    def _levels(self, steps: int) -> dict[str, Any]:
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)}

    def _channels(self) -> int:
        return self._config.in_channels // self.patch**2

    def _own_size(self) -> tuple[int, int]:
        # The transformer knows no size; this is the pipeline's.
        return self._pipeline.default_sample_size, self._pipeline.default_sample_size
