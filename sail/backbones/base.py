"""What the algorithm asks of a model family. B batch, C H W latent, T tokens, D width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor, nn

Conditioning = dict[str, Tensor]
"""Everything the denoiser is conditioned on, by name; the first axis of each tensor is the batch."""


def take(conditioning: Conditioning, rows: Sequence[int] | Tensor) -> Conditioning:
    """Rows of every tensor: what is duplicated for winner and loser is duplicated for all of them."""
    index = torch.as_tensor(rows, dtype=torch.long)
    # Not waiting for what the device still computes.
    return {name: tensor[index.to(tensor.device, non_blocking=True)] for name, tensor in conditioning.items()}


def join(*parts: Conditioning) -> Conditioning:
    """Batches one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Solver(Protocol):
    """A diffusers scheduler with its timesteps set."""

    timesteps: Tensor
    init_noise_sigma: Any

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **kwargs: Any) -> Any: ...


class Backbone(Protocol):
    """One loaded model."""

    denoiser: nn.Module
    device: torch.device
    precision: str
    """That the denoiser computes in: float32 or bfloat16."""
    num_train_timesteps: int
    lora_targets: tuple[str, ...]
    distilled: bool
    """Guidance is distilled into the denoiser: it is never asked a second time without the prompt."""

    @property
    def latent_space(self) -> str:
        """What tells the autoencoder's latents from those of another one, in words."""
        ...

    def latent_shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        """C, H, W of the latents of an image of `size` (height, width in pixels; None: the model's own)."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of a batch of prompts; "" is no prompt, as the family takes it.

        Of the precision that it was computed in, since `predict` asks in the denoiser's own.
        What depends on the image and not on the prompt, such as its size, is not in it: `predict` sees the
        latents. Where guidance is an input of the denoiser it is in it, at the value to learn and judge with.
        """
        ...

    def count_cut(self, prompts: Iterable[str]) -> int:
        """How many are longer than any text encoder reads, so that their end says nothing."""
        ...

    def encoding(self) -> AbstractContextManager[None]:
        """To encode many batches in: text encoders come to a GPU once, and are on the CPU at other times."""
        ...

    def conditioning_of(self, prompts: Sequence[str]) -> Conditioning:
        """As `encode_prompts`, and kept: the same batch asked for again is not encoded again.

        Where a batch must be encoded on a GPU, so are those that are expected next.
        """
        ...

    def expect(self, batches: Iterable[Sequence[str]]) -> None:
        """That `conditioning_of` will be asked for these, in this order."""
        ...

    def at_guidance(self, conditioning: Conditioning, guidance: float) -> Conditioning:
        """To draw with: the same where guidance is no input of the denoiser."""
        ...

    def timesteps(self, drawn_B: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What the denoiser is told of the noise, for whole numbers 0 (least) to num_train_timesteps - 1.

        `shape` is that of one image's latents: flow matching adds more noise to larger ones.
        `noisy`, `target` and `predict` take these timesteps, and those of a `Solver`.
        """
        ...

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """Latents with noise, B C H W: sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise on a noise schedule (DDPM,
        arXiv 2006.11239 eq. 4), (1 - s) x_0 + s noise with flow matching (arXiv 2210.02747)."""
        ...

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """What the denoiser is to predict: noise, velocity, or flow."""
        ...

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        """Float32, whatever the precision of the model."""
        ...

    def checkpoint_activations(self, on: bool) -> None:
        """Whether activations are computed again in the backward pass and not kept until then."""
        ...

    def solver(self, name: str, steps: int, shape: tuple[int, ...]) -> Solver:
        """ValueError where the family has none of that name; `auto` is its own."""
        ...

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Images as uint8, B H W 3."""
        ...

    def encode(self, images: Sequence[Image], size: tuple[int, int] | None = None) -> Tensor:
        """Latents of RGB images, B C H W float32, each image scaled to fill `size` and cropped to it."""
        ...

    def save_lora(self, folder: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
        """Write a LoRA that the family's own diffusers pipeline loads; return the file."""
        ...

    def load_lora(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights (peft's names) and LoraConfig values of a LoRA that `save_lora` or diffusers wrote."""
        ...

    def save_merged(self, lora_folder: Path, folder: Path) -> None:
        """Write the whole pipeline with a LoRA folded into its weights. The backbone itself is altered.

        Summed up and written in the precision that it was loaded in.
        """
        ...
