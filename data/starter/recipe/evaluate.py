"""Draw the prompts that name everything and let the measuring reader say what came out. Knows no training."""

# N images, A attributes

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from .files import publish_text
from .readers import AttributeReader
from .words import CLASSES, captions

BATCH = 50


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The released model, without progress bars. Never asks a hub."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, steps: int, guidance: float, noise_seed: int
) -> list[Image.Image]:
    """One image a prompt; image i depends on the prompt, i and the noise seed alone."""
    images: list[Image.Image] = []
    for first in range(0, len(prompts), BATCH):
        part = list(prompts[first : first + BATCH])
        noise = [torch.Generator().manual_seed(noise_seed * 100_003 + first + i) for i in range(len(part))]
        drawn = pipeline(part, num_inference_steps=steps, guidance_scale=guidance, generator=noise)
        images += drawn.images
    return images


def named_attributes(prompts: Iterable[str]) -> list[dict[str, str]]:
    """What each prompt names, by attribute; prompts are captions of the recipe."""
    known = {text: numbers for numbers, text in captions()}
    return [
        {
            name: CLASSES[name][number]
            for name, number in zip(CLASSES, known[prompt], strict=True)
            if number >= 0
        }
        for prompt in prompts
    ]


def found(images: Sequence[Image.Image], prompts: Sequence[str], reader: AttributeReader) -> dict[str, float]:
    """Attribute -> share of the images in which the reader finds what the prompt names."""
    hits: dict[str, list[bool]] = {name: [] for name in CLASSES}
    for named, read in zip(named_attributes(prompts), reader.name(images), strict=True):
        for name, value in named.items():
            hits[name].append(read[name] == value)
    return {name: sum(each) / len(each) for name, each in hits.items() if each}


def sheet(images: Sequence[Image.Image], *, columns: int = 8, zoom: int = 2) -> Image.Image:
    """The images side by side, enlarged without smoothing."""
    side = images[0].width * zoom + 2
    page = Image.new("RGB", (columns * side, -(-len(images) // columns) * side), (128, 128, 128))
    for i, image in enumerate(images):
        large = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
        page.paste(large, (i % columns * side, i // columns * side))
    return page


def evaluate(folder: Path, prompts_file: Path, *, steps: int, guidance: float) -> dict[str, float]:
    """Write `folder`/evaluation.json and samples.png (the first 64), from the released model."""
    prompts = prompts_file.read_text().splitlines()
    pipeline = load_pipeline(folder)
    began = time.monotonic()
    images = draw(pipeline, prompts, steps=steps, guidance=guidance, noise_seed=0)
    seconds = (time.monotonic() - began) / len(prompts)
    shares = found(images, prompts, AttributeReader.load("measuring", folder / "readers"))
    sheet(images[:64]).save(folder / "samples.png", optimize=True)
    record = {
        "prompts": prompts_file.name,
        "images": len(images),
        "solver": type(pipeline.scheduler).__name__,
        "steps": steps,
        "guidance": guidance,
        "threads": torch.get_num_threads(),
        "seconds_per_image": round(seconds, 3),
        "found": {name: round(share, 3) for name, share in shares.items()},
    }
    publish_text(folder / "evaluation.json", json.dumps(record, indent=1) + "\n")
    return shares
