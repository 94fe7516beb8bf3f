"""Stable Diffusion XL: a UNet, two CLIP text encoders, a pooled embedding and the size of the image.

Knows no adapter, pair or reward. B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from sail.backbones.base import Conditioning
from sail.backbones.diffusion import Diffusion


class StableDiffusionXL(Diffusion):
    """A loaded SDXL base pipeline."""

    pipeline_class = StableDiffusionXLPipeline
    part = "unet"

    def _encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeds, _, pooled, _ = self._pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        if self._pipeline.config.force_zeros_for_empty_prompt:
            # What "no prompt" was in its training, and is in its pipeline.
            is_told_B = torch.tensor([prompt != "" for prompt in prompts], device=self.device)
            embeds, pooled = embeds * is_told_B[:, None, None], pooled * is_told_B[:, None]
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        added = {
            "text_embeds": conditioning["pooled_prompt_embeds"],
            "time_ids": self._time_ids(noisy_BCHW),
        }
        return self.denoiser(
            noisy_BCHW,
            timesteps_B,
            encoder_hidden_states=conditioning["prompt_embeds"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def _time_ids(self, latents_BCHW: Tensor) -> Tensor:
        """Size before cropping, top left corner, size: B 6. Candidates are whole, so both sizes are theirs.

        A property of the latents and not of the prompt, so it is taken from them and kept nowhere.
        """
        size = [side * self._pipeline.vae_scale_factor for side in latents_BCHW.shape[-2:]]
        one = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
        # Not waiting for what the device still computes.
        return one.to(latents_BCHW.device, non_blocking=True).expand(len(latents_BCHW), -1)
