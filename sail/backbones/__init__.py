"""One file a family: how to load, encode, predict, decode. Knows no adapter, pair or reward.

The only door to diffusers and transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from sail.backbones import loading
from sail.backbones.base import Backbone, Conditioning
from sail.backbones.diffusion import SOLVERS, Diffusion
from sail.backbones.flow_matching import WITHOUT_NOISE, FlowMatching
from sail.backbones.flux import TOKENS_SCHNELL, Flux
from sail.backbones.sd3 import StableDiffusion3
from sail.backbones.sdxl import StableDiffusionXL
from sail.backbones.stable_diffusion import StableDiffusion
from sail.config import Sampling
from sail.model_ref import ModelRef

FAMILIES: dict[str, type[Diffusion | FlowMatching]] = {
    family.pipeline_class.__name__: family
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)
}
"""Name of the diffusers pipeline in model_index.json -> its backbone."""

__all__ = ["Backbone", "Conditioning", "call_of", "load", "pipeline_name", "scheduler_of"]


def load(
    model: ModelRef, device: torch.device | None = None, *, told: loading.OnBytes | None = None
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


def scheduler_of(model: ModelRef, sampling: Sampling, *, is_unet: bool) -> tuple[str, dict[str, Any]]:
    """Name of the diffusers scheduler that `model` is drawn with here, and what its `from_config` is told
    beside the configuration of the model's own, of which nothing is known where the model is not here."""
    if not is_unet:
        return FlowMatchEulerDiscreteScheduler.__name__, WITHOUT_NOISE
    kind, told = SOLVERS[sampling.solver]
    own = model.described("scheduler/scheduler_config.json", "algorithm_type")
    return kind.__name__, told({"algorithm_type": own} if own else {})


def call_of(model: ModelRef, sampling: Sampling) -> dict[str, Any]:
    """What a diffusers pipeline is called with, beside a prompt, to draw as is done here."""
    asked: dict[str, Any] = {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance}
    if sampling.size is not None:
        asked["height"], asked["width"] = sampling.size
    if model.is_schnell:
        asked["max_sequence_length"] = TOKENS_SCHNELL
    return asked


def _dtype(model: ModelRef, device: torch.device) -> torch.dtype:
    """bf16 halves the memory of the frozen weights; where a device only emulates it fp32 is faster."""
    if model.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, model.precision)
