"""Publish the last checkpoints as a diffusers folder in half precision. Knows no training, no accuracy."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from .codec import CHANNELS, psnr, trained_codec
from .denoiser import BATCH, SCHEDULE, tokenizer, trained_denoiser
from .files import publish, publish_text
from .scenes import NUM_JITTERS
from .words import combinations

NUM_STEPS, GUIDANCE = 12, 2.0
"""How the card's samples are drawn and measured, and what we recommend."""


def shipped_scheduler() -> DPMSolverMultistepScheduler:
    """The schedule of training behind a second-order solver."""
    shared = {name: SCHEDULE[name] for name in SCHEDULE if name not in ("clip_sample", "set_alpha_to_one")}
    return DPMSolverMultistepScheduler(**shared, final_sigmas_type="zero")


def assembled(work: Path) -> StableDiffusionPipeline:
    """A pipeline of the averaged weights of the last checkpoints."""
    denoiser = trained_denoiser(work)
    return StableDiffusionPipeline(
        vae=trained_codec(work),
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer(work),
        unet=denoiser.unet,
        scheduler=shipped_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def steps_done(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["step"])


def training_record(work: Path, pipeline: StableDiffusionPipeline) -> dict[str, Any]:
    """What the model card says of the parts and of their training."""
    parts = {"UNet": pipeline.unet, "text encoder": pipeline.text_encoder, "VAE": pipeline.vae}
    return {
        "parts": [
            {
                "part": name,
                "class": type(part).__name__,
                "parameters": sum(weight.numel() for weight in part.parameters()),
            }
            for name, part in parts.items()
        ],
        "latent_channels": CHANNELS,
        "scenes": NUM_JITTERS * len(combinations()),
        "jitters": NUM_JITTERS,
        "denoiser_images": BATCH * steps_done(work / "denoiser.pt"),
        "denoiser_batch": BATCH,
        "decoder_steps": steps_done(work / "decoder.pt"),
        "decoder_psnr_db": round(psnr(work), 2),
    }


def release(work: Path, folder: Path) -> None:
    """Write the model into `folder`, file by file, each whole; what else lies there stays."""
    pipeline = assembled(work)
    record = training_record(work, pipeline)
    # transformers loads a text encoder in the precision it was saved in, diffusers loads its own in single:
    # a text encoder in half precision would not fit the loaded UNet.
    pipeline.unet.half()
    pipeline.vae.half()
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        pipeline.save_pretrained(scratch)
        # The index comes last: a folder that has one is complete.
        files = sorted(path for path in Path(scratch).rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path.name == "model_index.json"):
            publish(folder / path.relative_to(scratch), path.read_bytes())
    publish_text(folder / "training.json", json.dumps(record, indent=1) + "\n")
