"""A pipeline of every family with random weights, small enough for a test. Real diffusers and transformers.

Images are 4 pixels a latent; sizes are not square where a test can choose, so that height is not width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tiny_model import WORDS, tokenizer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

WIDTH = 16
"""Of a text encoder."""
SIZE = (16, 24)
"""Height and width in pixels."""


def build_stable_diffusion(folder: Path, **schedule: Any) -> Path:
    torch.manual_seed(0)
    return _save(
        StableDiffusionPipeline(
            vae=_autoencoder(),
            text_encoder=_clip(CLIPTextModel),
            tokenizer=tokenizer(),
            unet=_unet(cross_attention_dim=WIDTH),
            scheduler=_noise_schedule(**schedule),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
        folder,
    )


def build_sdxl(folder: Path, **schedule: Any) -> Path:
    torch.manual_seed(0)
    unet = _unet(
        cross_attention_dim=2 * WIDTH,
        # More than one, as SDXL alone has.
        transformer_layers_per_block=2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return _save(
        StableDiffusionXLPipeline(
            vae=_autoencoder(),
            text_encoder=_clip(CLIPTextModel),
            text_encoder_2=_clip(CLIPTextModelWithProjection),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet,
            scheduler=_noise_schedule(**schedule),
            add_watermarker=False,
        ),
        folder,
    )


def build_sd3(folder: Path, *, t5: bool = True) -> Path:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
    )
    return _save(
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_autoencoder(shift_factor=0.3),
            text_encoder=_clip(CLIPTextModelWithProjection),
            tokenizer=tokenizer(),
            text_encoder_2=_clip(CLIPTextModelWithProjection),
            tokenizer_2=tokenizer(),
            text_encoder_3=_t5() if t5 else None,
            tokenizer_3=tokenizer() if t5 else None,
        ),
        folder,
    )


def build_flux(folder: Path, *, dev: bool = True) -> Path:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=dev,
    )
    return _save(
        FluxPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0 if dev else 1.0,
                use_dynamic_shifting=dev,
                base_image_seq_len=4,
                max_image_seq_len=64,
            ),
            vae=_autoencoder(shift_factor=0.1),
            text_encoder=_clip(CLIPTextModel),
            tokenizer=tokenizer(),
            text_encoder_2=_t5(),
            tokenizer_2=tokenizer(),
        ),
        folder,
    )


def _save(pipeline: Any, folder: Path) -> Path:
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    with torch.no_grad():
        for module in denoiser.modules():
            # Larger than they are made, or what a denoiser is conditioned on would hardly be seen.
            if isinstance(module, nn.Linear):
                module.weight.mul_(2)
    pipeline.save_pretrained(folder)
    return folder


def _unet(**conditioning: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **conditioning,
    )


def _autoencoder(**config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.7,
        **config,
    )


def _noise_schedule(**config: Any) -> DPMSolverMultistepScheduler:
    known = {
        "clip_sample": False,
        "steps_offset": 1,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }
    return DPMSolverMultistepScheduler.from_config(DDPMScheduler(**known, **config).config)


def _clip(kind: type[CLIPTextModel]) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
    )
    return kind(config)


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(WORDS), d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=1
    )
    return T5EncoderModel(config)


# A single file, as Stable Diffusion checkpoints came before diffusers: other names for the same weights.

_IN_A_FILE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0": "output_blocks.1.2",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_A_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def write_single_file(folder: Path, file: Path) -> Path:
    """The UNet and the text encoder of a tiny Stable Diffusion in one file; the VAE is not in it."""
    weights = {}
    for name, tensor in load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        part = next(part for part in _IN_A_FILE if name.startswith(f"{part}."))
        rest = name.removeprefix(f"{part}.")
        if "resnets" in part:
            inner, kind = rest.rsplit(".", 1)
            rest = f"{_IN_A_RESNET[inner]}.{kind}"
        weights[f"model.diffusion_model.{_IN_A_FILE[part]}.{rest}"] = tensor
    for name, tensor in load_file(folder / "text_encoder/model.safetensors").items():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    save_file(weights, file)
    return file
