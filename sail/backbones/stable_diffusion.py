"""Stable Diffusion 1.x and 2.x: UNet, one CLIP text encoder, epsilon or velocity prediction.

Knows no adapter, pair or reward. B batch, C H W latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.utils import logging as transformers_logging

from sail.backbones.base import Conditioning, Solver
from sail.config import ModelRef

SOLVERS = {"dpm++": DPMSolverMultistepScheduler, "ddim": DDIMScheduler, "ddpm": DDPMScheduler}


class StableDiffusion:
    """A loaded Stable Diffusion pipeline, its weights frozen."""

    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, pipeline: StableDiffusionPipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self.device = device
        self.denoiser = pipeline.unet.requires_grad_(False).eval()
        pipeline.vae.requires_grad_(False)
        pipeline.text_encoder.requires_grad_(False)
        self._schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.num_train_timesteps = int(self._schedule.config.num_train_timesteps)

    @staticmethod
    def download(model: ModelRef) -> Path:
        """The folder of a model; a hub id is looked up in the cache or fetched, safetensors only."""
        if Path(model.source).is_dir():
            return Path(model.source)
        try:
            return Path(
                snapshot_download(
                    model.source,
                    revision=model.revision,
                    allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"],
                )
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The model {model.source} at {model.revision} could not be had from the hub: {error}. "
                "Give the folder of a downloaded model instead."
            ) from error

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
        for library in (diffusers_logging, transformers_logging):
            library.set_verbosity_error()
            library.disable_progress_bar()
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        return cls(pipeline.to(device), device)

    def latent_shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        config = self._pipeline.unet.config
        factor = self._pipeline.vae_scale_factor
        if size is None:
            side = config.sample_size
            height, width = side if isinstance(side, tuple | list) else (side, side)
            return config.in_channels, height, width
        if size[0] % factor or size[1] % factor:
            raise ValueError(f"Height and width must be multiples of {factor}, got {size[0]} x {size[1]}.")
        return config.in_channels, size[0] // factor, size[1] // factor

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        tokenizer = self._pipeline.tokenizer
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        encoder = self._pipeline.text_encoder
        # As in the pipeline: a mask only where the encoder asks for one.
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if masked else None
        embeds = encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return {"prompt_embeds": embeds.float()}

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return self._schedule.add_noise(latents_BCHW, noise_BCHW, timesteps_B)

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        kind = self._schedule.config.prediction_type
        if kind == "epsilon":
            return noise_BCHW
        if kind == "v_prediction":
            return self._schedule.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        raise ValueError(f"Prediction type {kind} is not known. Known: epsilon, v_prediction.")

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self._pipeline.unet.dtype
        embeds = conditioning["prompt_embeds"].to(dtype)
        reduced = dtype != torch.float32
        # On a CPU the backward pass of fused attention takes twenty times as long in bf16 as in float32.
        plain = reduced and self.device.type == "cpu" and torch.is_grad_enabled()
        attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
        # LoRA weights are float32 beside frozen bf16 ones.
        with torch.autocast(self.device.type, dtype, enabled=reduced), attention:
            prediction = self._pipeline.unet(
                noisy_BCHW.to(dtype), timesteps_B, encoder_hidden_states=embeds, return_dict=False
            )[0]
        return prediction.float()

    def solver(self, name: str, steps: int) -> Solver:
        scheduler = SOLVERS[name].from_config(self._pipeline.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    @torch.no_grad()
    def decode(self, latents_BCHW: Tensor) -> Tensor:
        vae = self._pipeline.vae
        scaled = (latents_BCHW / vae.config.scaling_factor).to(vae.dtype)
        images_B3HW = vae.decode(scaled, return_dict=False)[0]
        images_BHW3 = images_B3HW.float().permute(0, 2, 3, 1)
        return ((images_BHW3 / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def save_lora(self, folder: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
        StableDiffusionPipeline.save_lora_weights(
            folder, unet_lora_layers=dict(weights), unet_lora_adapter_metadata=dict(metadata)
        )
        return next(folder.glob("*.safetensors"))

    def load_lora(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        weights, _, metadata = StableDiffusionPipeline.lora_state_dict(
            folder, use_safetensors=True, local_files_only=True, return_lora_metadata=True
        )
        own = {
            key.removeprefix("unet."): tensor for key, tensor in weights.items() if key.startswith("unet.")
        }
        if not own:
            raise ValueError(f"{folder} holds no LoRA of a UNet.")
        return own, {key.removeprefix("unet."): value for key, value in (metadata or {}).items()}

    def save_merged(self, lora_folder: Path, folder: Path) -> None:
        self._pipeline.load_lora_weights(lora_folder)
        self._pipeline.fuse_lora()
        self._pipeline.unload_lora_weights()
        self._pipeline.save_pretrained(folder, safe_serialization=True)
