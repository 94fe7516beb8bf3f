"""A pipeline of every family with random weights, small enough for a test. Real diffusers and transformers.

Images are 4 pixels a latent; sizes are not square where a test can choose, so that height is not width.
"""

from __future__ import annotations

import re
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
DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


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


def build_sdxl(folder: Path, *, second_width: int = WIDTH, **schedule: Any) -> Path:
    torch.manual_seed(0)
    unet = _unet(
        cross_attention_dim=WIDTH + second_width,
        # More than one, as SDXL alone has.
        transformer_layers_per_block=2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + second_width,
    )
    return _save(
        StableDiffusionXLPipeline(
            vae=_autoencoder(),
            text_encoder=_clip(CLIPTextModel),
            text_encoder_2=_clip(CLIPTextModelWithProjection, second_width),
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


def _clip(kind: type[CLIPTextModel], width: int = WIDTH) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        projection_dim=width,
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
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
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


_IN_A_VAE = {
    r"down_blocks\.(\d)\.resnets": "down.{}.block",
    r"down_blocks\.(\d)\.downsamplers\.0": "down.{}.downsample",
    r"up_blocks\.(\d)\.resnets": "up.{}.block",
    r"up_blocks\.(\d)\.upsamplers\.0": "up.{}.upsample",
    r"mid_block\.resnets\.0": "mid.block_1",
    r"mid_block\.resnets\.1": "mid.block_2",
    r"mid_block\.attentions\.0": "mid.attn_1",
    r"group_norm": "norm",
    r"to_([qkv])\.": "{}.",
    r"to_out\.0": "proj_out",
    r"conv_norm_out": "norm_out",
    r"conv_shortcut": "nin_shortcut",
}


def write_single_file(
    folder: Path, file: Path, *, encoder: bool = True, vae: bool = False, markers: tuple[str, ...] = ()
) -> Path:
    """The UNet of a tiny Stable Diffusion in one file, with its text encoder and its VAE where asked for.

    `markers` are keys that say something without a weight, as `v_pred` does.
    """
    weights = {marker: torch.zeros(0) for marker in markers}
    for name, tensor in load_file(folder / f"unet/{DIFFUSERS_FILE}").items():
        part = next(part for part in _IN_A_FILE if name.startswith(f"{part}."))
        rest = name.removeprefix(f"{part}.")
        if "resnets" in part:
            inner, kind = rest.rsplit(".", 1)
            rest = f"{_IN_A_RESNET[inner]}.{kind}"
        weights[f"model.diffusion_model.{_IN_A_FILE[part]}.{rest}"] = tensor
    for name, tensor in load_file(folder / "text_encoder/model.safetensors").items() if encoder else ():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    for name, tensor in load_file(folder / f"vae/{DIFFUSERS_FILE}").items() if vae else ():
        weights[f"first_stage_model.{_in_a_vae(name)}"] = tensor
    save_file(weights, file)
    return file


_IN_AN_OPEN_CLIP = {
    "text_model.encoder.layers": "transformer.resblocks",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "layer_norm": "ln_",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
}


def write_sdxl_file(folder: Path, file: Path) -> Path:
    """All of a tiny SDXL in one file, its second text encoder as OpenCLIP names it."""
    weights = load_file(write_single_file(folder, file, encoder=False, vae=True))
    for name, tensor in load_file(folder / "text_encoder/model.safetensors").items():
        known = name.removeprefix("text_model.")
        weights[f"conditioner.embedders.0.transformer.text_model.{known}"] = tensor
    second = load_file(folder / "text_encoder_2/model.safetensors")
    for name, tensor in second.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            tensor = torch.cat([second[name.replace("q_proj", f"{one}_proj")] for one in "qkv"])
            name = name.replace("q_proj.", "in_proj_")
        if name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T.contiguous()
        for own, other in _IN_AN_OPEN_CLIP.items():
            name = name.replace(own, other)
        weights[f"conditioner.embedders.1.model.{name}"] = tensor
    save_file(weights, file)
    return file


def _in_a_vae(name: str) -> str:
    """Its blocks that scale up are numbered from the last."""
    upwards = "up_blocks" in name
    for pattern, other in _IN_A_VAE.items():
        name = re.sub(
            pattern,
            lambda found, other=other: other.format(
                *(str(2 - int(one)) if upwards and one.isdigit() else one for one in found.groups())
            ),
            name,
        )
    return name


_IN_AN_SD3_FILE = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_IN_AN_SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_ASKED_TOGETHER = {
    "x_block": ("to_q", "to_k", "to_v"),
    "context_block": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def write_sd3_file(folder: Path, file: Path) -> Path:
    """The transformer and the T5 of a tiny SD3 in one file, named as Stability and ComfyUI name them."""
    own = load_file(folder / f"transformer/{DIFFUSERS_FILE}")
    last = max(int(name.split(".")[1]) for name in own if name.startswith("transformer_blocks."))
    weights = {}
    for name, tensor in own.items():
        block, inner = re.fullmatch(r"(?:transformer_blocks\.(\d+)\.)?(.*)", name).groups()
        module = inner.removesuffix(".weight").removesuffix(".bias")
        kind = inner.removeprefix(module)
        if module == "norm_out.linear" or (module == "norm1_context.linear" and int(block) == last):
            # Scale and shift have changed places.
            tensor = torch.cat(tensor.chunk(2)[::-1])
        if block is None:
            weights[_IN_AN_SD3_FILE.get(module, module) + kind] = tensor
        elif module in _IN_AN_SD3_BLOCK:
            weights[f"joint_blocks.{block}.{_IN_AN_SD3_BLOCK[module]}{kind}"] = tensor
    for block in range(last + 1):
        for side, asked in _ASKED_TOGETHER.items():
            for kind in ("weight", "bias"):
                parts = [own[f"transformer_blocks.{block}.attn.{name}.{kind}"] for name in asked]
                weights[f"joint_blocks.{block}.{side}.attn.qkv.{kind}"] = torch.cat(parts)
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}
    for name, tensor in load_file(folder / "text_encoder_3/model.safetensors").items():
        weights[f"text_encoders.t5xxl.transformer.{name}"] = tensor
    save_file(weights, file)
    return file
