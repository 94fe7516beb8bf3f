"""What all families share: a diffusers pipeline whose weights are frozen. Knows no prediction type.

B batch, C H W latent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import dropwhile
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel

from sail.backbones.base import Conditioning

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
MOST_KEPT = 256
"""Prompts whose conditioning is kept: Flux's take a GiB of the CPU's memory in bf16."""
AHEAD = 64
"""Prompts that are encoded while the text encoders are on a GPU."""


class PipelineBackbone(ABC):
    """A loaded pipeline. A family says how it encodes prompts, and how its denoiser is asked."""

    pipeline_class: ClassVar[type[DiffusionPipeline]]
    part: ClassVar[Literal["unet", "transformer"]]
    """What the pipeline calls its denoiser, and its LoRA files the denoiser's weights."""
    lora_targets: tuple[str, ...] = ATTENTION
    distilled = False
    patch = 1
    """Latent height and width are multiples of this."""
    most_tokens = 256
    """That a T5 reads: what diffusers' SD3 pipeline tells it."""
    load_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, pipeline: DiffusionPipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self.device = device
        self._encoders: list[nn.Module] = []
        for name, module in pipeline.components.items():
            if isinstance(module, nn.Module):
                module.requires_grad_(False).eval()
                if name.startswith("text_encoder"):
                    self._encoders.append(module.cpu())
                else:
                    module.to(device)
        self._encoders_are_here = device.type == "cpu"
        self._expected: dict[tuple[str, ...], None] = {}
        self._kept: dict[tuple[str, ...], Conditioning] = {}
        """On the CPU, what was asked for last at the end."""
        if device.type != "cpu" and hasattr(pipeline.vae, "use_slicing"):
            # One image at a time: a chunk of large ones takes more memory than all that denoises them. On a
            # CPU, whose bits hang on the batch, memory is not what is short.
            pipeline.vae.enable_slicing()
        self.denoiser: nn.Module = getattr(pipeline, self.part)
        self._config: Any = self.denoiser.config
        self._checkpointing = False
        # Now: float32 adapters will lie in it.
        self._dtype: torch.dtype = self.denoiser.dtype
        self.precision = str(self._dtype).removeprefix("torch.")

    @abstractmethod
    def _encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """As the family's pipeline does, with the text encoders on the device."""

    @contextmanager
    def encoding(self) -> Iterator[None]:
        if self._encoders_are_here:
            yield
            return
        tensors = [own for module in self._encoders for own in (*module.parameters(), *module.buffers())]
        # They are frozen: what is on the CPU stays there, and nothing is copied back.
        on_cpu = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                tensor.data = tensor.data.to(self.device)
            self._encoders_are_here = True
            yield
        finally:
            self._encoders_are_here = False
            for tensor, data in zip(tensors, on_cpu, strict=True):
                tensor.data = data

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        with self.encoding():
            return self._encode_prompts(prompts)

    def count_cut(self, prompts: Iterable[str]) -> int:
        parts = self._pipeline.components
        readers = [
            # A T5 is told how far to read; of CLIP the tokenizer says it.
            (part, self.most_tokens if isinstance(encoder, T5EncoderModel) else part.model_max_length)
            for name, part in parts.items()
            if name.startswith("tokenizer") and (encoder := parts[name.replace("tokenizer", "text_encoder")])
        ]
        return sum(all(len(part(prompt).input_ids) > most for part, most in readers) for prompt in prompts)

    def expect(self, batches: Iterable[Sequence[str]]) -> None:
        # Where encoders never travel nothing is gained by haste.
        if self.device.type != "cpu":
            self._expected |= dict.fromkeys(map(tuple, batches))

    def conditioning_of(self, prompts: Sequence[str]) -> Conditioning:
        asked = tuple(prompts)
        if asked not in self._kept:
            self._encode_ahead(asked)
        found = self._kept[asked] = self._kept.pop(asked)
        while len(self._kept) > 1 and sum(map(len, self._kept)) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return {name: rows.to(self.device) for name, rows in found.items()}

    def _encode_ahead(self, asked: tuple[str, ...]) -> None:
        """Keep the conditioning of a batch, and of those that are expected after it."""
        after = dropwhile(lambda batch: batch != asked, list(self._expected))
        count = 0
        with self.encoding():
            for batch in dict.fromkeys([asked, *after]):
                if count and count + len(batch) > AHEAD:
                    break
                self._expected.pop(batch, None)
                # Those that are kept already are as new: they must outlast the ones before them.
                found = self._kept.pop(batch, None) or self.encode_prompts(batch)
                self._kept[batch] = {name: rows.cpu() for name, rows in found.items()}
                count += len(batch)

    @abstractmethod
    def _denoise(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Ask the denoiser as the family's pipeline does."""

    def at_guidance(self, conditioning: Conditioning, guidance: float) -> Conditioning:
        return conditioning

    def latent_shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        if size is None:
            return self._channels(), *self._own_size()
        factor: int = self._pipeline.vae_scale_factor
        multiple = factor * self.patch
        if size[0] % multiple or size[1] % multiple:
            raise ValueError(f"Height and width must be multiples of {multiple}, got {size[0]} x {size[1]}.")
        return self._channels(), size[0] // factor, size[1] // factor

    def _channels(self) -> int:
        return self._config.in_channels

    def _own_size(self) -> tuple[int, int]:
        """Latent height and width that the model was made for."""
        side = self._config.sample_size
        height, width = side if isinstance(side, tuple | list) else (side, side)
        return height, width

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        reduced = self._dtype != torch.float32
        # On a CPU the backward pass of fused attention takes twenty times as long in bf16 as in float32.
        plain = reduced and self.device.type == "cpu" and torch.is_grad_enabled()
        attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
        own = {name: tensor.to(self._dtype) for name, tensor in conditioning.items()}
        # LoRA weights are float32 beside frozen bf16 ones.
        with torch.autocast(self.device.type, self._dtype, enabled=reduced), attention:
            prediction = self._denoise(noisy_BCHW.to(self._dtype), timesteps_B, own)
        return prediction.float()

    def checkpoint_activations(self, on: bool) -> None:
        # There the attention of the backward pass would be another than that of the forward pass.
        on = on and not (self._dtype != torch.float32 and self.device.type == "cpu")
        if on == self._checkpointing:
            return
        self._checkpointing, denoiser = on, cast(Any, self.denoiser)
        if on:
            denoiser.enable_gradient_checkpointing()
        else:
            denoiser.disable_gradient_checkpointing()

    @property
    def latent_space(self) -> str:
        config = self._pipeline.vae.config
        shift = config.get("shift_factor") or 0.0
        return f"{config.latent_channels} channels, scaled by {config.scaling_factor:g}, shifted by {shift:g}"

    @torch.no_grad()
    def decode(self, latents_BCHW: Tensor) -> Tensor:
        vae = self._pipeline.vae
        scaled = latents_BCHW / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
        images_B3HW = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
        images_BHW3 = images_B3HW.float().permute(0, 2, 3, 1)
        return ((images_BHW3 / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    @torch.no_grad()
    def encode(self, images: Sequence[Image], size: tuple[int, int] | None = None) -> Tensor:
        factor: int = self._pipeline.vae_scale_factor
        _, height, width = self.latent_shape(size)
        pixels_B3HW = self._pipeline.image_processor.preprocess(
            list(images), height * factor, width * factor, resize_mode="crop"
        )
        vae, own = self._pipeline.vae, self._pipeline.vae.dtype
        # In bfloat16 latents are off by as much as the least noisy timesteps add.
        vae.float()
        try:
            encoded = vae.encode(pixels_B3HW.to(self.device))
        finally:
            vae.to(own)
        # The posterior's mode where there is a posterior: the same image gives the same latents.
        latents_BCHW = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents
        return ((latents_BCHW - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor).float()

    def save_lora(self, folder: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
        named = {
            f"{self.part}_lora_layers": dict(weights),
            f"{self.part}_lora_adapter_metadata": dict(metadata),
        }
        self.pipeline_class.save_lora_weights(folder, **named)
        return next(folder.glob("*.safetensors"))

    def load_lora(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        weights, *alphas, metadata = self.pipeline_class.lora_state_dict(
            folder, use_safetensors=True, local_files_only=True, return_alphas=True, return_lora_metadata=True
        )
        prefix = f"{self.part}."
        own = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
        if not own:
            raise ValueError(f"{folder} holds no LoRA of a {self.part} for {self.pipeline_class.__name__}.")
        if len(own) < len(weights):
            other = next(key for key in weights if not key.startswith(prefix))
            raise ValueError(
                f"{folder} adapts more than the {self.part} ({other}), and that would be left out."
            )
        for key, alpha in (alphas[0] or {} if alphas else {}).items():
            module = key.removeprefix(prefix).removesuffix(".alpha")
            if f"{module}.lora_A.weight" in own:
                # A strength that the file gives layer by layer.
                own[f"{module}.lora_B.weight"] *= float(alpha) / len(own[f"{module}.lora_A.weight"])
        return own, {key.removeprefix(prefix): value for key, value in (metadata or {}).items()}

    def save_merged(self, lora_folder: Path, folder: Path) -> None:
        self._pipeline.load_lora_weights(lora_folder)
        self._pipeline.fuse_lora()
        self._pipeline.unload_lora_weights()
        self._pipeline.save_pretrained(folder, safe_serialization=True)
