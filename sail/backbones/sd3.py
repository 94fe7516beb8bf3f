"""Stable Diffusion 3 and 3.5: a transformer, two CLIP text encoders and, where it is there, a T5.

Knows no adapter, pair or reward. B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from sail.backbones.base import Conditioning
from sail.backbones.flow_matching import FlowMatching
from sail.backbones.pipeline import ATTENTION


class StableDiffusion3(FlowMatching):
    """A loaded SD3 or SD3.5 pipeline; without its T5 the pipeline puts zeros in its place."""

    pipeline_class = StableDiffusion3Pipeline
    part = "transformer"
    lora_targets = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    def _encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeds, _, pooled, _ = self._pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        return self.denoiser(
            noisy_BCHW,
            timestep=timesteps_B,
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
