"""`python -m data.starter.recipe STEP`: each step resumes from its checkpoint and skips what is done."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .art import build_art
from .card import write_card
from .codec import all_latents, train_decoder
from .denoiser import train_denoiser
from .evaluate import evaluate
from .prompts import write_prompts
from .reading import build_readers
from .release import GUIDANCE, NUM_STEPS, release
from .scenes import build_scenes

STARTER = Path(__file__).resolve().parents[1]
WORK = STARTER / ".work"
PROMPTS = STARTER.parent / "prompts"


def build_data(work: Path) -> None:
    """Artwork, scenes and latents: what every training starts from."""
    build_art(work)
    build_scenes(work)
    all_latents(work)


def steps_of(asked: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Every step by name, in the order of `all`."""
    prompts = PROMPTS / "all_attributes.txt"
    return {
        "data": lambda: build_data(WORK),
        "prompts": lambda: write_prompts(PROMPTS),
        "decoder": lambda: train_decoder(WORK, steps=asked.decoder_steps),
        "readers": lambda: build_readers(WORK, STARTER / "readers", passes=asked.reader_passes),
        "denoiser": lambda: train_denoiser(WORK, STARTER, images=asked.images),
        "release": lambda: release(WORK, STARTER),
        "evaluate": lambda: evaluate(STARTER, prompts, steps=NUM_STEPS, guidance=GUIDANCE),
        "card": lambda: write_card(STARTER),
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data.starter.recipe", description=__doc__)
    parser.add_argument("step", choices=[*steps_of(argparse.Namespace()), "all"])
    add = partial(parser.add_argument, type=int)
    add("--images", default=370_000, help="latents the denoiser is trained on in all")
    add("--decoder-steps", default=7_000, help="steps of the decoder in all")
    add("--reader-passes", default=8, help="passes of each reader over its half of the scenes")
    add("--threads", default=2)
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(asked.threads)
    steps = steps_of(asked)
    if asked.step in ("decoder", "readers", "denoiser"):
        build_data(WORK)
    for name in steps if asked.step == "all" else [asked.step]:
        steps[name]()


if __name__ == "__main__":
    main()
