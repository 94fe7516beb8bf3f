"""Stable Diffusion 1.x and 2.x: a UNet, one CLIP text encoder, noise or velocity prediction.

Knows no adapter, pair or reward. B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusionPipeline
from torch import Tensor

from sail.backbones.base import Conditioning
from sail.backbones.diffusion import Diffusion


class StableDiffusion(Diffusion):
    """A loaded Stable Diffusion pipeline."""

    pipeline_class = StableDiffusionPipeline
    part = "unet"
    load_options: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "requires_safety_checker": False,
        # Only the checker looks at features; and what old models call it is no class any more.
        "feature_extractor": None,
    }

    def _encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeds, _ = self._pipeline.encode_prompt(
            list(prompts), self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds}

    def _denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        return self.denoiser(
            noisy_BCHW,
            timesteps_B,
            encoder_hidden_states=conditioning["prompt_embeds"],
            return_dict=False,
        )[0]
