"""Models of published shapes with random weights: SD1.5 and SDXL as their configurations describe them.

For timing alone. Their tokenizer knows no words, only as many numbers as the text encoders.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
)

from sail.backbones import Backbone
from sail.backbones.sdxl import StableDiffusionXL
from sail.backbones.stable_diffusion import StableDiffusion


class Shape(NamedTuple):
    side: int
    """Pixels."""
    is_xl: bool


SHAPES = {
    "sd15-512": Shape(512, False),
    "sd15-1024": Shape(1024, False),
    "sdxl-512": Shape(512, True),
    "sdxl-1024": Shape(1024, True),
}

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def unet_of(shape: Shape) -> UNet2DConditionModel:
    return UNet2DConditionModel(**(SDXL_UNET if shape.is_xl else SD15_UNET))


def backbone_of_shape(name: str, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Backbone:
    """A pipeline with random weights, made on the device it is used on."""
    shape = SHAPES[name]
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    with device:
        torch.manual_seed(0)
        vae = AutoencoderKL(**VAE, scaling_factor=0.13025 if shape.is_xl else 0.18215)
        parts: dict[str, nn.Module] = {
            "unet": unet_of(shape).to(dtype),
            "vae": vae.to(dtype),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L)).to(dtype),
        }
        if shape.is_xl:
            second = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_BIG_G))
            parts["text_encoder_2"] = second.to(dtype)
    if shape.is_xl:
        xl = StableDiffusionXLPipeline(
            **parts, scheduler=scheduler, tokenizer=_tokenizer(), tokenizer_2=_tokenizer()
        )
        return StableDiffusionXL(xl, device)
    plain = StableDiffusionPipeline(
        **parts,
        scheduler=scheduler,
        tokenizer=_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return StableDiffusion(plain, device)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"a": 0, "<|start|>": 49406, "<|end|>": 49407}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", 49406), ("<|end|>", 49407)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        unk_token="a",
        model_max_length=77,
    )
