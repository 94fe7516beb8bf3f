"""Scorers of random weights in folders: real CLIP classes, small enough for a test."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_model import WORDS, tokenizer
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from sail.scorers import HEAD

WIDTH = 24
SIZE = 16
"""Pixels of an image as the CLIP sees it."""


def build_clip(folder: Path, *, noise_seed: int = 0) -> Path:
    """Write a CLIP and its processor to `folder`, as `save_pretrained` does."""
    torch.manual_seed(noise_seed)
    shared = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    model = CLIPModel(
        CLIPConfig(
            text_config={**shared, **text},
            vision_config={**shared, "image_size": SIZE, "patch_size": 8},
            projection_dim=WIDTH,
        )
    )
    # Fresh weights are too small to tell one image from another.
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.logit_scale.data.fill_(4.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    ).save_pretrained(folder)
    return folder


def head_weights(width: int = WIDTH, *, noise_seed: int = 0) -> dict[str, torch.Tensor]:
    """The aesthetic predictor's layers under the names they were published with."""
    torch.manual_seed(noise_seed)
    sizes = {0: (width, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    layers = {f"layers.{place}": nn.Linear(*size) for place, size in sizes.items()}
    return {
        f"{name}.{part}": tensor.detach()
        for name, layer in layers.items()
        for part, tensor in layer.named_parameters()
    }


def build_aesthetic(folder: Path) -> Path:
    build_clip(folder, noise_seed=1)
    save_file(head_weights(), folder / HEAD)
    return folder
