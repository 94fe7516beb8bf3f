"""One file a family: how to load, encode, predict, decode. Knows no adapter, pair or reward.

The only door to diffusers and transformers.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sail.backbones.base import Backbone, Conditioning
from sail.backbones.stable_diffusion import StableDiffusion
from sail.config import ModelRef

FAMILIES: dict[str, type[StableDiffusion]] = {"StableDiffusionPipeline": StableDiffusion}
"""Name of the diffusers pipeline in model_index.json -> its backbone."""

__all__ = ["Backbone", "Conditioning", "load"]


def load(model: ModelRef, device: torch.device | None = None) -> Backbone:
    """The model on `device` (default: the GPU where there is one), frozen, in its computing precision.

    ValueError where there is no such model or its family is not known.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = StableDiffusion.download(model.checked())
    return _family(folder).load(folder, device, _dtype(model, device))


def _dtype(model: ModelRef, device: torch.device) -> torch.dtype:
    """bf16 halves the memory of the frozen weights; on a CPU without matrix units for it fp32 is faster."""
    if model.precision == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    return getattr(torch, model.precision)


def _family(folder: Path) -> type[StableDiffusion]:
    name = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    if name not in FAMILIES:
        raise ValueError(f"{folder} is a {name}. Known families: {', '.join(FAMILIES)}.")
    return FAMILIES[name]
