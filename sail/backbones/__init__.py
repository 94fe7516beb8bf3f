"""One file a family: how to load, encode, predict, decode. Knows no adapter, pair or reward.

The only door to diffusers and transformers.
"""

from __future__ import annotations

import torch

from sail.backbones import loading
from sail.backbones.base import Backbone, Conditioning
from sail.backbones.diffusion import Diffusion
from sail.backbones.flow_matching import FlowMatching
from sail.backbones.flux import Flux
from sail.backbones.sd3 import StableDiffusion3
from sail.backbones.sdxl import StableDiffusionXL
from sail.backbones.stable_diffusion import StableDiffusion
from sail.config import ModelRef

FAMILIES: dict[str, type[Diffusion | FlowMatching]] = {
    family.pipeline_class.__name__: family
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)
}
"""Name of the diffusers pipeline in model_index.json -> its backbone."""

__all__ = ["Backbone", "Conditioning", "load", "pipeline_name"]


def load(
    model: ModelRef, device: torch.device | None = None, *, told: loading.Told | None = None
) -> Backbone:
    """The model on `device` (default: the GPU where there is one), frozen, in its computing precision.

    `told` hears of a download as it goes on.
    ValueError where there is no such model or its family is not known.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    location = loading.locate(model.checked(), told)
    config = loading.config_folder(location, model.revision)
    name = loading.pipeline_name(config)
    if name not in FAMILIES:
        raise ValueError(f"{location} is a {name}. Known families: {', '.join(FAMILIES)}.")
    family = FAMILIES[name]
    pipeline = loading.read(
        family.pipeline_class, location, config, _dtype(model, device), family.load_options
    )
    return family(pipeline, device)


def pipeline_name(model: ModelRef) -> str:
    """Name of the diffusers pipeline that reads `model`. ValueError where that cannot be known."""
    return loading.pipeline_name(loading.config_folder(loading.locate(model.checked()), model.revision))


def _dtype(model: ModelRef, device: torch.device) -> torch.dtype:
    """bf16 halves the memory of the frozen weights; where a device only emulates it fp32 is faster."""
    if model.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, model.precision)
