"""The model that ships, as a user gets it: no network, no recipe, plain diffusers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline

from data.starter.recipe.evaluate import draw, found, load_pipeline
from data.starter.recipe.readers import READERS, AttributeReader
from sail import backbones
from sail.model_ref import ModelRef
from sail.rounds import parse_prompts
from sail.settings import LoopSettings

STARTER = Path(__file__).resolve().parents[1] / "data/starter"
PROMPTS = STARTER.parent / "prompts"


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return load_pipeline(STARTER)


def test_the_starter_is_a_whole_stable_diffusion_and_small(pipeline):
    assert pipeline.vae_scale_factor == 4 and pipeline.unet.config.sample_size == 16
    weights = [*STARTER.glob("**/*.safetensors")]
    assert len(weights) >= 3 and sum(file.stat().st_size for file in weights) < 40e6


def test_the_engine_takes_the_starter_as_it_is():
    backbone = backbones.load(ModelRef(source=str(STARTER)))
    assert backbone.latent_shape(None) == (8, 16, 16)
    embeds = backbone.encode_prompts(["a fox", "a big 3d pizza on a blue background"])["prompt_embeds"]
    assert embeds.shape[0] == 2 and not torch.equal(embeds[0], embeds[1])


def test_the_starter_brings_settings_whose_modules_it_has():
    model = ModelRef(source=str(STARTER))
    settings, backbone = LoopSettings.for_model(model), backbones.load(model)
    assert settings != LoopSettings() and settings.lora.targets
    modules = [name for name, _ in backbone.denoiser.named_modules()]
    for target in settings.lora.targets:
        assert any(name.endswith(f".{target}") for name in modules)


def test_the_encoder_is_linear_and_the_decoder_undoes_it(pipeline):
    vae: AutoencoderTiny = pipeline.vae
    torch.manual_seed(0)
    first, second = (torch.rand(1, 3, 64, 64) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        both = vae.encode((first + second) / 2).latents
        apart = (vae.encode(first).latents + vae.encode(second).latents) / 2
        # A plain image with a plain square on it: 30 dB is a mean error of 8 in 255.
        scene = torch.full((1, 3, 64, 64), -0.5)
        scene[:, 0, 20:44, 20:44] = 0.6
        decoded = vae.decode(vae.encode(scene).latents).sample
    assert torch.allclose(both, apart, atol=1e-4)
    assert float((decoded - scene).pow(2).mean().sqrt()) / 2 < 0.06


def test_there_are_enough_prompts_and_half_leave_something_open():
    prompts = parse_prompts((PROMPTS / "starter.txt").read_text())
    open_ones = [p for p in prompts if " background" not in p or not {"big", "small"} & set(p.split())]
    assert len(prompts) >= 400 and len(open_ones) >= len(prompts) / 2
    assert any("pizza" in prompt for prompt in prompts)
    held_out = parse_prompts((PROMPTS / "heldout.txt").read_text())
    assert len(held_out) >= 200 and not set(held_out) & set(prompts)


def test_the_readers_know_the_same_classes_and_are_two():
    annotating, measuring = (AttributeReader.load(name) for name in READERS)
    assert annotating.classes == measuring.classes
    assert len(annotating.classes["subject"]) >= 40 and "pizza" in annotating.classes["subject"]
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    first, second = annotating.read(image), measuring.read(image)
    assert all(torch.allclose(p.sum(1), torch.ones(2)) for p in first.values())
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_reader_refuses_images_of_another_size():
    with pytest.raises(ValueError, match="Resize the images"):
        AttributeReader.load("measuring").read(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


def test_the_starter_draws_what_it_is_asked_for(pipeline):
    """A part of what the card says; the bounds leave room for the noise of 40 images."""
    prompts = (PROMPTS / "all_attributes.txt").read_text().splitlines()[:40]
    said = json.loads((STARTER / "evaluation.json").read_text())
    images = draw(pipeline, prompts, steps=said["steps"], guidance=said["guidance"], noise_seed=0)
    shares = found(images, prompts, AttributeReader.load("measuring"))
    for attribute, share in said["found"].items():
        spread = 3 * (share * (1 - share) / len(prompts)) ** 0.5 + 0.05
        assert abs(shares[attribute] - share) <= spread, attribute


def test_images_of_one_prompt_differ(pipeline):
    images = draw(pipeline, ["a pizza"] * 4, steps=12, guidance=2.0, noise_seed=1)
    pixels = np.stack([np.asarray(image, float) for image in images])
    distance = np.abs(pixels[:, None] - pixels[None]).mean((2, 3, 4))
    assert distance[np.triu_indices(4, 1)].min() > 5
