"""Every model family against its own diffusers pipeline: real classes, random weights, tiny size."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DiffusionPipeline,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    SASolverScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils import convert_state_dict_to_kohya
from engine import sail
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_families import SIZE, build_flux, build_sd3, build_sdxl, build_stable_diffusion
from torch import Tensor

from sail import backbones, cost, model_ref
from sail.backbones import Backbone
from sail.backbones.base import take
from sail.backbones.sdxl import StableDiffusionXL
from sail.batches import Batch, _encode
from sail.config import Lora, Monitoring, Optimisation, Sampling, Scoring
from sail.export import model_card
from sail.files import sha256_file
from sail.loss import denoising_error, diffusion_dpo
from sail.model_ref import ModelRef
from sail.monitors import HumanPair, judged_pairs
from sail.policy import Policy
from sail.progress import Progress
from sail.requests import ExportRequest, ProposeRequest
from sail.reward import draw_weights, gains, implicit_reward
from sail.runfolder import ADAPTER_FILE, RunFolder
from sail.running import execute
from sail.sampling import denoise, draw
from sail.settings import LoopSettings

FOR_TOOLS = "A-model-aligned-with-SAIL.safetensors"
"""What such an export is called by in other tools, after its title."""

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "stable_diffusion": build_stable_diffusion,
    "sdxl": build_sdxl,
    "sd3": build_sd3,
    "flux": build_flux,
    "v_prediction": partial(build_stable_diffusion, prediction_type="v_prediction"),
    "zero_snr": partial(
        build_sdxl,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "sd3_without_t5": partial(build_sd3, t5=False),
    "schnell": partial(build_flux, dev=False),
}
FAMILIES = ("stable_diffusion", "sdxl", "sd3", "flux")
FLOWS = ("sd3", "sd3_without_t5", "flux", "schnell")
PROMPTS = ("a red fox", "a big pizza on a blue background")
QUICK = Sampling(steps=4, size=SIZE)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    root, built = tmp_path_factory.mktemp("families"), {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = BUILDERS[name](root / name)
        return built[name]

    return folder


@pytest.fixture
def load(folder_of) -> Callable[..., Backbone]:
    return lambda name, **how: backbones.load(ModelRef(source=str(folder_of(name)), **how))


def pipeline_of(folder: Path) -> DiffusionPipeline:
    without_t5 = {"text_encoder_3": None, "tokenizer_3": None} if "sd3_without_t5" in folder.parts else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **without_t5)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise_of(backbone: Backbone, count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    shape = backbone.latent_shape(size)
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(7))


def drawn_by_pipeline(
    pipeline: DiffusionPipeline, noise: Tensor, *, guidance: float, output_type: str = "latent"
) -> Tensor:
    packed = hasattr(pipeline, "_pack_latents")
    images = pipeline(
        list(PROMPTS),
        num_inference_steps=QUICK.steps,
        guidance_scale=guidance,
        latents=pipeline._pack_latents(noise, *noise.shape) if packed else noise,
        height=SIZE[0],
        width=SIZE[1],
        output_type=output_type,
        # That diffusers has one number for both kinds of Flux is no word on schnell.
        **({} if not packed or pipeline.transformer.config.guidance_embeds else {"max_sequence_length": 256}),
    ).images
    if packed and output_type == "latent":
        return pipeline._unpack_latents(images, *SIZE, pipeline.vae_scale_factor)
    return images


def drawn_by_us(policy: Policy, noise: Tensor, *, guidance: float) -> Tensor:
    conditioning = policy.backbone.encode_prompts(PROMPTS)
    sampling = QUICK.model_copy(update={"guidance": guidance})
    return denoise(policy, noise, conditioning, [], sampling)


def trainable(backbone: Backbone, *, changed: bool, **lora) -> Policy:
    """A policy with an adapter that changes nothing, or much."""
    policy = Policy(backbone)
    policy.add_trainable(Lora(rank=2, **lora), noise_seed=0)
    if changed:
        with torch.no_grad():
            for name, parameter in policy.parameters().items():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(3))
    return policy


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch, native, expected):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    model = ModelRef(source="any")
    assert backbones._dtype(model, torch.device("cuda")) == expected
    assert backbones._dtype(model, torch.device("cpu")) == torch.float32


# Sampling


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", BUILDERS)
def test_our_sampler_draws_what_the_familys_pipeline_draws(load, folder_of, name, guidance):
    backbone, pipeline = load(name), pipeline_of(folder_of(name))
    noise = noise_of(backbone)
    ours = drawn_by_us(Policy(backbone), noise, guidance=guidance)
    theirs = drawn_by_pipeline(pipeline, noise, guidance=guidance)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.std()))
    assert not torch.allclose(ours[0], ours[1], atol=0.1)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_decoded_as_the_pipeline_does(load, folder_of, name):
    backbone, pipeline = load(name), pipeline_of(folder_of(name))
    noise = noise_of(backbone)
    images = backbone.decode(drawn_by_pipeline(pipeline, noise, guidance=1.0))
    theirs = drawn_by_pipeline(pipeline, noise, guidance=1.0, output_type="np")
    assert images.shape == (2, *SIZE, 3) and images.dtype == torch.uint8
    assert (images.float() - torch.from_numpy(theirs) * 255).abs().max() < 0.6
    assert images.float().std() > 5


@pytest.mark.parametrize("name", FAMILIES)
def test_on_a_gpu_images_are_decoded_and_encoded_one_by_one_to_the_same(load, folder_of, pretend_gpu, name):
    on_cpu, pipeline = load(name), pipeline_of(folder_of(name))
    on_gpu = type(on_cpu)(pipeline, pretend_gpu)
    assert (on_cpu._pipeline.vae.use_slicing, pipeline.vae.use_slicing) == (False, True)
    at_once = {"decoder": [], "encoder": []}
    for part, seen in at_once.items():
        own = getattr(pipeline.vae, part)
        own.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
    latents = noise_of(on_cpu, 3)
    images_BHW3 = on_cpu.decode(latents)
    assert (images_BHW3.int() - on_gpu.decode(latents).int()).abs().max() <= 1
    images = [Image.fromarray(image.numpy()) for image in images_BHW3]
    assert torch.allclose(on_cpu.encode(images, SIZE), on_gpu.encode(images, SIZE), atol=1e-5)
    assert at_once == {"decoder": [1] * 3, "encoder": [1] * 3}


@pytest.mark.parametrize("name", FAMILIES)
def test_guidance_changes_what_is_drawn(load, name):
    policy = Policy(load(name))
    noise = noise_of(policy.backbone)
    weak, strong = (drawn_by_us(policy, noise, guidance=guidance) for guidance in (1.5, 6.0))
    assert (weak - strong).abs().mean() > 1e-3 * weak.std()


@pytest.mark.parametrize(("name", "passes"), [("sd3", 2), ("flux", 1), ("schnell", 1)])
def test_a_model_that_guidance_is_distilled_into_is_asked_once_a_step(load, monkeypatch, name, passes):
    policy, seen = Policy(load(name)), []
    predict = policy.backbone.predict
    monkeypatch.setattr(
        policy.backbone, "predict", lambda noisy, *rest: seen.append(len(noisy)) or predict(noisy, *rest)
    )
    drawn_by_us(policy, noise_of(policy.backbone), guidance=4.0)
    assert seen == [2 * passes] * QUICK.steps
    guided = QUICK.model_copy(update={"guidance": 4.0})
    reckoned = cost.evaluations_to_draw(guided, distilled=policy.backbone.distilled)
    assert reckoned == passes * QUICK.steps


def test_schnell_knows_no_guidance(load):
    policy = Policy(load("schnell"))
    noise = noise_of(policy.backbone)
    assert "guidance" not in policy.backbone.encode_prompts(PROMPTS)
    assert torch.equal(*(drawn_by_us(policy, noise, guidance=guidance) for guidance in (1.0, 6.0)))


def test_flow_matching_has_no_other_solver(load):
    with pytest.raises(ValueError, match=r"no solver ddpm.*Set sampling\.solver to auto"):
        load("sd3").solver("ddpm", 4, (4, 4, 6))


@pytest.mark.parametrize(
    ("solver", "spacing", "steps", "possible"),
    [
        ("dpm++", "linspace", 999, True),
        ("dpm++", "linspace", 1000, False),
        ("dpm++", "leading", 998, True),
        ("dpm++", "leading", 999, False),
        ("dpm++", "trailing", 1000, True),
        ("ddim", "leading", 500, True),
        ("ddim", "leading", 1000, False),
        ("ddpm", "trailing", 1000, True),
    ],
)
def test_steps_that_a_solver_cannot_take_are_refused_before_anything_is_drawn(
    folder_of, tmp_path, solver, spacing, steps, possible
):
    folder = shutil.copytree(folder_of("stable_diffusion"), tmp_path / "model")
    file = folder / "scheduler/scheduler_config.json"
    own = {"timestep_spacing": spacing, "steps_offset": 1, "num_train_timesteps": 1000}
    file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
    backbone = backbones.load(ModelRef(source=str(folder)))
    if possible:
        assert len(backbone.solver(solver, steps, (4, 4, 6)).timesteps) == steps
        return
    with pytest.raises(ValueError, match=rf"1000 noise levels.*cannot take {steps} steps.*Lower"):
        backbone.solver(solver, steps, (4, 4, 6))


@pytest.mark.parametrize(
    ("name", "noisy"),
    [("sdxl", {"algorithm_type": "sde-dpmsolver++"}), ("sd3", {"stochastic_sampling": True})],
)
def test_a_models_own_noisy_solver_draws_without_noise(load, folder_of, tmp_path, name, noisy):
    folder = shutil.copytree(folder_of(name), tmp_path / "noisy")
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **noisy}))
    policy = Policy(backbones.load(ModelRef(source=str(folder))))
    noise = noise_of(policy.backbone)
    once, again = (drawn_by_us(one, noise, guidance=2.0) for one in (policy, policy))
    assert torch.equal(once, again)
    assert torch.equal(once, drawn_by_us(Policy(load(name)), noise, guidance=2.0))


@pytest.mark.parametrize("kind", [DEISMultistepScheduler, UniPCMultistepScheduler, SASolverScheduler])
def test_a_model_with_another_multistep_solver_is_drawn_with_dpm(load, folder_of, tmp_path, kind):
    folder = shutil.copytree(folder_of("stable_diffusion"), tmp_path / "model")
    own = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type")
    kind(**{name: own[name] for name in names}).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", kind.__name__]}))
    policy = Policy(backbones.load(ModelRef(source=str(folder))))
    noise = noise_of(policy.backbone)
    drawn = drawn_by_us(policy, noise, guidance=2.0)
    expected = drawn_by_us(Policy(load("stable_diffusion")), noise, guidance=2.0)
    assert torch.allclose(drawn, expected, atol=1e-4)


@pytest.mark.parametrize(("name", "tokens"), [("flux", 512), ("schnell", 256)])
def test_flux_reads_as_many_tokens_as_it_was_published_with(load, name, tokens):
    assert load(name).encode_prompts(["a fox"])["prompt_embeds"].shape[1] == tokens


@pytest.mark.parametrize(
    ("name", "most"),
    [("stable_diffusion", 12), ("sdxl", 12), ("sd3", 256), ("sd3_without_t5", 12), ("flux", 512)],
)
def test_prompts_are_cut_where_no_text_encoder_reads_them_to_the_end(load, name, most):
    fits, is_longer = ("a " * (count - 2) for count in (most, most + 1))  # And a token at either end.
    assert load(name).count_cut([fits, is_longer, "a fox", is_longer]) == 2


@pytest.mark.parametrize(("name", "multiple"), [("stable_diffusion", 4), ("sd3", 8), ("flux", 8)])
def test_a_size_that_a_family_cannot_draw_is_refused(load, name, multiple):
    backbone = load(name)
    assert backbone.latent_shape((4 * multiple, 2 * multiple)) == (4, multiple, multiple // 2)
    with pytest.raises(ValueError, match=f"multiples of {multiple}"):
        backbone.latent_shape((4 * multiple, 2 * multiple + multiple // 2))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_is_encoded_to_the_mode_of_its_posterior_scaled_as_the_pipeline_decodes(
    load, folder_of, name
):
    pixels_BHW3 = torch.randint(256, (2, *SIZE, 3), dtype=torch.uint8)
    vae = pipeline_of(folder_of(name)).vae
    with torch.no_grad():
        posterior = vae.encode(pixels_BHW3.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    expected = (posterior.mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    found = load(name).encode([Image.fromarray(image.numpy()) for image in pixels_BHW3], SIZE)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)


def test_an_image_of_another_shape_fills_the_size_and_is_cut_at_its_middle(load):
    pixels_HW3 = torch.randint(256, (SIZE[0], 3 * SIZE[1], 3), dtype=torch.uint8)
    middle_HW3 = pixels_HW3[:, SIZE[1] : 2 * SIZE[1]].contiguous()
    wide, cut = (Image.fromarray(image.numpy()) for image in (pixels_HW3, middle_HW3))
    backbone = load("stable_diffusion")
    assert torch.allclose(backbone.encode([wide], SIZE), backbone.encode([cut], SIZE), atol=1e-5)


def test_the_starters_images_survive_encoding_at_their_own_scale(root):
    model = ModelRef(source=str(root / "data/starter"))
    policy, sampling = Policy(backbones.load(model)), LoopSettings.for_model(model).sampling
    (drawn,) = draw(policy, ["a red fox"], per_prompt=2, noise_seed=0, sampling=sampling)
    images_BHW3 = policy.backbone.decode(drawn.latents_NCHW)
    latents_BCHW = policy.backbone.encode([Image.fromarray(image.numpy()) for image in images_BHW3])

    def difference(scale: float) -> float:
        again_BHW3 = policy.backbone.decode(scale * latents_BCHW)
        return float((images_BHW3.float() - again_BHW3.float()).abs().mean())

    assert difference(1) < min(difference(0.9), difference(1.1))
    assert difference(1) < 0.1 * float(images_BHW3.float().std())


def test_without_a_size_images_are_as_large_as_the_model_was_made_for(load):
    assert load("sdxl").latent_shape(None) == (4, 8, 8)
    assert load("sd3").latent_shape(None) == (4, 8, 8)
    assert load("flux").latent_shape(None) == (4, 128, 128)


# Noise, target, timesteps


def drawn_timesteps(backbone: Backbone, *drawn: int) -> Tensor:
    return backbone.timesteps(torch.tensor(drawn), backbone.latent_shape(SIZE))


@pytest.mark.parametrize("name", FLOWS)
def test_the_target_of_flow_matching_leads_from_the_image_to_the_noise(load, name):
    backbone = load(name)
    noise, latents = noise_of(backbone, 4).chunk(2)
    timesteps = drawn_timesteps(backbone, 100, 800)
    level = (timesteps / 1000).view(-1, 1, 1, 1)
    noisy, target = backbone.noisy(latents, noise, timesteps), backbone.target(latents, noise, timesteps)
    assert torch.equal(target, noise - latents)
    assert torch.allclose(noisy - level * target, latents, atol=1e-5)
    assert torch.allclose(noisy + (1 - level) * target, noise, atol=1e-5)
    # A step of the solver along the target ends at the image.
    solver = backbone.solver("auto", 1, backbone.latent_shape(SIZE))
    assert torch.allclose(solver.step(target, solver.timesteps[0], noise).prev_sample, latents, atol=1e-5)


def test_a_fixed_shift_is_in_the_timesteps_that_are_learned(load):
    table = FlowMatchEulerDiscreteScheduler(shift=3.0).timesteps.flip(0)
    timesteps = drawn_timesteps(load("sd3"), *range(1000))
    assert torch.equal(timesteps, table)
    # s = 3u / (1 + 2u): half of all draws have three quarters of noise or more.
    assert timesteps[499] == pytest.approx(750) and timesteps[999] == 1000


def test_larger_latents_are_learned_with_more_noise_where_the_scheduler_says_so(load):
    flux, drawn = load("flux"), torch.arange(0, 1000, 50)
    small, large = flux.timesteps(drawn, (4, 4, 6)), flux.timesteps(drawn, (4, 16, 16))
    assert (large > small).all() and small.diff().min() > 0
    schnell = load("schnell")
    assert torch.allclose(schnell.timesteps(drawn, (4, 16, 16)), drawn + 1.0)


@pytest.mark.parametrize("name", ["flux", "schnell"])
def test_evenly_spread_draws_are_at_the_timesteps_that_the_solver_steps_through(load, name):
    backbone = load(name)
    shape = backbone.latent_shape(SIZE)
    solver = backbone.solver("auto", 5, shape)
    assert torch.allclose(
        backbone.timesteps(torch.tensor([999, 799, 599, 399, 199]), shape), solver.timesteps
    )


def test_the_target_of_a_noise_schedule_follows_the_prediction_type(load):
    epsilon, velocity = load("sdxl"), load("zero_snr")
    noise, latents = noise_of(epsilon, 4).chunk(2)
    timesteps = drawn_timesteps(epsilon, 10, 700)
    assert torch.equal(epsilon.target(latents, noise, timesteps), noise)
    # x_t = a x + b e and v = a e - b x give back x = a x_t - b v.
    one = torch.ones(2, 1, 1, 1)
    a, b = (velocity.noisy(x, e, timesteps) for x, e in ((one, 0 * one), (0 * one, one)))
    noisy, target = (f(latents, noise, timesteps) for f in (velocity.noisy, velocity.target))
    assert torch.allclose(a * noisy - b * target, latents, atol=1e-5)


def test_with_zero_terminal_snr_the_last_timestep_is_all_noise_and_its_target_the_image(load):
    backbone = load("zero_snr")
    noise, latents = noise_of(backbone, 4).chunk(2)
    last = drawn_timesteps(backbone, 999, 999)
    assert torch.equal(backbone.noisy(latents, noise, last), noise)
    assert torch.equal(backbone.target(latents, noise, last), -latents)
    plain = load("v_prediction")
    assert not torch.allclose(plain.noisy(latents, noise, last), noise, atol=1e-2)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_with_zero_terminal_snr_our_sampler_draws_what_the_pipeline_draws(load, folder_of, guidance):
    policy, pipeline = Policy(load("zero_snr")), pipeline_of(folder_of("zero_snr"))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    noise = noise_of(policy.backbone)
    sampling = QUICK.model_copy(update={"guidance": guidance, "solver": "ddim"})
    ours = denoise(policy, noise, policy.backbone.encode_prompts(PROMPTS), [], sampling)
    theirs = drawn_by_pipeline(pipeline, noise, guidance=guidance)
    assert pipeline.scheduler.timesteps[0] == 999 and torch.isfinite(ours).all()
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.std()))


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_latents_are_never_clipped_whatever_the_scheduler_leaves_open(folder_of, name):
    pipeline = pipeline_of(folder_of("sdxl"))
    pipeline.scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear")
    backbone = StableDiffusionXL(pipeline, torch.device("cpu"))
    solver, far = backbone.solver(name, 1, (4, 4, 6)), torch.full((1, 4, 4, 6), 5.0)
    noisy = backbone.noisy(far, torch.zeros_like(far), solver.timesteps)
    found = solver.step(torch.zeros_like(far), solver.timesteps[0], noisy).pred_original_sample
    assert torch.allclose(found, far, atol=1e-4)


def test_a_schedule_that_is_none_of_betas_is_refused(folder_of):
    pipeline = pipeline_of(folder_of("sdxl"))
    pipeline.scheduler = EDMEulerScheduler()
    with pytest.raises(ValueError, match="EDMEulerScheduler, has no beta schedule"):
        StableDiffusionXL(pipeline, torch.device("cpu"))


# Conditioning

EXPECTED = {
    "stable_diffusion": {"prompt_embeds"},
    "sdxl": {"prompt_embeds", "pooled_prompt_embeds"},
    "sd3": {"prompt_embeds", "pooled_prompt_embeds"},
    "flux": {"prompt_embeds", "pooled_prompt_embeds", "guidance"},
}


def batch_of_pairs(backbone: Backbone, *, latents_P2: Tensor | None = None) -> Batch:
    """Three pairs of two prompts and the empty one, each with a timestep of its own."""
    if latents_P2 is None:
        latents_P2 = noise_of(backbone, 6).unflatten(0, (3, 2))
    shape = latents_P2.shape[2:]
    timesteps_P = backbone.timesteps(torch.tensor([100, 500, 900]), shape)
    noise_P = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))
    conditioning = backbone.encode_prompts([*PROMPTS, ""])
    return Batch(
        latents_P2, noise_P, timesteps_P, torch.ones(3).bool(), [1, 0, 2], conditioning, backbone.device
    )


def predicted(backbone: Backbone, batch: Batch) -> Tensor:
    noisy = backbone.noisy(batch.latents_2P, batch.noise_2P, batch.timesteps_2P)
    return backbone.predict(noisy, batch.timesteps_2P, batch.conditioning_2P)


@pytest.mark.parametrize("name", FAMILIES)
def test_winner_and_loser_share_all_of_their_conditioning(load, name):
    backbone = load(name)
    batch = batch_of_pairs(backbone)
    assert set(batch.conditioning_2P) == EXPECTED[name]
    for tensor in (*batch.conditioning_2P.values(), batch.timesteps_2P, batch.noise_2P):
        winner, loser = tensor.chunk(2)
        assert len(winner) == 3 and torch.equal(winner, loser)
    for name_, expected_P in backbone.encode_prompts([PROMPTS[1], PROMPTS[0], ""]).items():
        assert torch.allclose(batch.conditioning_2P[name_][:3], expected_P, atol=1e-5)
        assert name_ == "guidance" or not torch.allclose(expected_P[0], expected_P[1], atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_keeps_its_prompts_as_they_were_computed_part_by_part(load, name):
    prompts = [*PROMPTS, "a fox", "a pizza", ""]
    policy = Policy(load(name, precision="bfloat16"))
    parts = [policy.backbone.encode_prompts(prompts[first : first + 2]) for first in (0, 2, 4)]
    kept = _encode(policy, prompts, batch=2)
    assert set(kept) == EXPECTED[name]
    for name_, rows in kept.items():
        assert torch.equal(rows, torch.cat([part[name_] for part in parts]))
        # Float32 would say no more, in twice the memory.
        assert rows.dtype == (torch.float32 if name_ == "guidance" else torch.bfloat16)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_a_step_only_the_part_that_is_used_is_on_the_device(load, name):
    backbone = load(name)
    conditioning = _encode(Policy(backbone), [*PROMPTS, ""])
    latents_P2 = noise_of(backbone, 10).unflatten(0, (5, 2))
    draws = latents_P2[:, 0], torch.arange(5), torch.ones(5).bool(), [0, 1, 2, 1, 0]
    batch = Batch(latents_P2, *draws, conditioning, torch.device("meta"))
    before: list[ref[Tensor]] = []
    for part, rows in zip(batch.parts(2), (4, 4, 2), strict=True):
        assert not any(tensor() is not None for tensor in before)
        sent = [part.latents_2P, part.noise_2P, part.timesteps_2P, *part.conditioning_2P.values()]
        assert {(tensor.device.type, len(tensor)) for tensor in sent} == {("meta", rows)}
        before = [ref(tensor) for tensor in sent]
        del sent


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pair_of_the_same_image_twice_has_margin_0_whatever_the_adapter(load, name):
    policy = trainable(load(name), changed=True)
    same_P2 = noise_of(policy.backbone, 3).unsqueeze(1).expand(-1, 2, -1, -1, -1)
    batch = batch_of_pairs(policy.backbone, latents_P2=same_P2)
    with torch.no_grad():
        winner, loser = predicted(policy.backbone, batch).chunk(2)
    assert torch.allclose(winner, loser, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_image_of_a_batch_is_predicted_with_its_own_conditioning(load, name):
    backbone = load(name)
    batch = batch_of_pairs(backbone)
    noisy = backbone.noisy(batch.latents_2P, batch.noise_2P, batch.timesteps_2P)
    together = predicted(backbone, batch)
    prompts = [PROMPTS[1], PROMPTS[0], ""] * 2
    for row, prompt in enumerate(prompts):
        alone = backbone.predict(
            noisy[row : row + 1], batch.timesteps_2P[row : row + 1], backbone.encode_prompts([prompt])
        )
        assert torch.allclose(together[row], alone[0], rtol=1e-3, atol=1e-4 * float(together.std()))


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in FAMILIES for key in sorted(EXPECTED[name])]
)
def test_every_part_of_the_conditioning_matters(load, name, key):
    backbone = load(name)
    batch = batch_of_pairs(backbone)
    before = predicted(backbone, batch)
    other = take(batch.conditioning_2P, [1, 0, 2, 3, 4, 5])[key] if key != "guidance" else torch.zeros(6)
    batch.conditioning_2P[key] = other
    changed = (predicted(backbone, batch) - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    assert (changed[:2] > 1e-3).all()
    assert key == "guidance" or (changed[2:] < 1e-4).all()


def asked_of_the_denoiser(backbone: Backbone, monkeypatch) -> dict[str, Tensor]:
    """What the denoiser itself is given for a batch of three pairs."""
    seen, forward = {}, backbone.denoiser.forward

    def watched(*positional, **named):
        seen.update(named)
        return forward(*positional, **named)

    monkeypatch.setattr(backbone.denoiser, "forward", watched)
    predicted(backbone, batch_of_pairs(backbone))
    return seen


def test_sdxl_is_told_the_size_of_every_image(load, monkeypatch):
    added = asked_of_the_denoiser(load("sdxl"), monkeypatch)["added_cond_kwargs"]
    height, width = SIZE
    assert added["time_ids"].tolist() == [[height, width, 0, 0, height, width]] * 6
    assert added["text_embeds"].shape[0] == 6


def test_sdxl_knows_no_prompt_as_zeros(load):
    encoded = load("sdxl").encode_prompts(["", "a fox"])
    for tensor in encoded.values():
        assert not tensor[0].any() and tensor[1].any()


def test_flux_is_told_the_guidance_it_learns_with_and_where_every_patch_is(load, monkeypatch):
    seen = asked_of_the_denoiser(load("flux"), monkeypatch)
    assert seen["guidance"].tolist() == [3.5] * 6
    assert seen["timestep"].max() <= 1 and seen["timestep"].shape == (6,)
    assert seen["img_ids"].tolist() == [[0, row, column] for row in range(2) for column in range(3)]
    assert seen["txt_ids"].shape == (seen["encoder_hidden_states"].shape[1], 3) and not seen["txt_ids"].any()


# Text encoders on a GPU


@pytest.fixture
def pretend_gpu(monkeypatch) -> torch.device:
    """A device of another type than the CPU; what is sent there is a copy on the CPU."""
    device, here, plain = torch.device("meta"), torch.device("cpu"), Tensor.to

    def to(self: Tensor, *positional, **named):
        if device not in (*positional, *named.values()):
            return plain(self, *positional, **named)
        positional = [here if one == device else one for one in positional]
        named = {name: here if one == device else one for name, one in named.items()}
        return plain(self.clone(), *positional, **named)

    monkeypatch.setattr(Tensor, "to", to)
    return device


class Trips:
    """Where the text encoders of a backbone are, and what is encoded, in batches of each trip."""

    def __init__(self, backbone: Backbone, monkeypatch) -> None:
        self._backbone = backbone
        self._at_home = self._places()
        self.trips: list[list[list[str]]] = []
        plain, bring = backbone._encode_prompts, backbone.encoding

        def encode(prompts):
            assert not set(self._places()) & set(self._at_home), "encoded where the encoders are kept"
            self.trips[-1].append(list(prompts))
            return plain(prompts)

        @contextmanager
        def encoding():
            if self.at_home:
                self.trips.append([])
            with bring():
                yield

        monkeypatch.setattr(backbone, "_encode_prompts", encode)
        monkeypatch.setattr(backbone, "encoding", encoding)

    def _places(self) -> list[int]:
        parts = self._backbone._pipeline.components.items()
        encoders = [module for name, module in parts if "text_encoder" in name and module is not None]
        return [own.data_ptr() for module in encoders for own in (*module.parameters(), *module.buffers())]

    @property
    def at_home(self) -> bool:
        return self._places() == self._at_home


@pytest.fixture
def far(folder_of, pretend_gpu, monkeypatch) -> tuple[Backbone, Trips]:
    """A model of three text encoders on a GPU."""
    backbone = backbones.load(ModelRef(source=str(folder_of("sd3")), precision="float32"), pretend_gpu)
    # It has none of a GPU's arithmetic.
    monkeypatch.setattr("sail.backbones.pipeline.torch.autocast", lambda *_, **__: nullcontext())
    return backbone, Trips(backbone, monkeypatch)


def test_text_encoders_are_on_a_gpu_only_while_they_encode(far, load):
    backbone, trips = far
    found = backbone.encode_prompts(PROMPTS)
    for name, rows in load("sd3").encode_prompts(PROMPTS).items():
        assert torch.equal(found[name], rows)
    assert trips.trips == [[list(PROMPTS)]] and trips.at_home
    with pytest.raises(ValueError, match="text input"):
        backbone.encode_prompts([1])
    assert trips.at_home


def test_a_runs_prompts_are_encoded_in_one_trip(far):
    backbone, trips = far
    _encode(Policy(backbone), ["a fox", "a pizza", ""], batch=1)
    assert trips.trips == [[["a fox"], ["a pizza"], [""]]] and trips.at_home


def test_drawing_and_judging_take_a_trip_for_many_prompts_and_none_the_second_time(
    far, load, tmp_path, monkeypatch
):
    backbone, trips = far
    sha256 = trainable(load("sd3"), changed=True).save(tmp_path / "adapter")
    request = ProposeRequest(
        model=ModelRef(source=str(tmp_path)),
        adapter=sha256,
        prompts=[f"a red fox {number}" for number in range(5)],
        num_candidates=2,
        sampling=QUICK.model_copy(update={"chunk": 4}),
        scoring=Scoring(draws=2),
    )
    one_by_one = [[prompt] for prompt in request.prompts]
    found = []
    for name, own in (("far", backbone), ("near", load("sd3"))):
        monkeypatch.setattr("sail.backbones.load", lambda *_, own=own, **__: own)
        folder = RunFolder.create(tmp_path / name, request, adapters={sha256: tmp_path / "adapter"})
        execute(folder)
        files = [load_file(folder.path / one.latents) for one in folder.candidate_sets()]
        found.append([file[key] for file in files for key in ("latents", "gains", "reference_errors")])
    assert all(map(torch.equal, *found))
    # The last chunk is one prompt, which is judged as well.
    by_chunk = [[*request.prompts[:2]], [*request.prompts[2:4]]]
    assert trips.trips == [by_chunk, [[""]], one_by_one] and trips.at_home

    pairs = [HumanPair(prompt, prompt, noise_of(backbone), False) for prompt in request.prompts]
    judge = partial(judged_pairs, Policy(backbone), pairs, request.scoring, progress=Progress(folder))
    judge()
    assert len(trips.trips) == 3
    backbone._kept.clear()
    judge()
    assert trips.trips[3:] == [one_by_one]


def test_what_is_asked_for_again_and_again_and_is_more_than_is_kept_takes_few_trips(far, monkeypatch):
    backbone, trips = far
    monkeypatch.setattr("sail.backbones.pipeline.MOST_KEPT", 10)
    monkeypatch.setattr("sail.backbones.pipeline.AHEAD", 4)
    prompts = [[f"a red fox {number}"] for number in range(12)]
    for _ in range(3):
        backbone.expect(prompts)
        for prompt in prompts:
            backbone.conditioning_of(prompt)
    assert len(trips.trips) <= 9


def test_prompts_are_kept_up_to_a_bound_those_asked_for_last(load, monkeypatch):
    backbone, encoded = load("stable_diffusion"), []
    plain = backbone._encode_prompts
    monkeypatch.setattr(backbone, "_encode_prompts", lambda asked: encoded.append(*asked) or plain(asked))
    monkeypatch.setattr("sail.backbones.pipeline.MOST_KEPT", 2)
    for prompt in ("fox", "pizza", "fox", "a", "fox", "pizza"):
        found = backbone.conditioning_of([prompt])
        assert torch.equal(found["prompt_embeds"], plain([prompt])["prompt_embeds"])
    assert encoded == ["fox", "pizza", "a", "pizza"]


# Reward and loss


@pytest.mark.parametrize("name", FAMILIES)
def test_a_policy_equal_to_its_reference_has_reward_0_and_loss_log_2(load, name):
    fresh = trainable(load(name), changed=False)
    latents = noise_of(fresh.backbone, 3)
    scoring = Scoring(draws=4)
    for policy in (fresh, trainable(load(name, precision="bfloat16"), changed=False)):
        gain_NK = gains(policy, PROMPTS[0], latents, scoring, reference="base")
        assert torch.equal(gain_NK, torch.zeros(3, 4))
    batch = batch_of_pairs(fresh.backbone)
    target = fresh.backbone.target(batch.latents_2P, batch.noise_2P, batch.timesteps_2P)
    error_2P = denoising_error(predicted(fresh.backbone, batch), target)
    with fresh.acting_as("base"):
        reference_2P = denoising_error(predicted(fresh.backbone, batch), target)
    loss = diffusion_dpo(error_2P, reference_2P, LoopSettings().loss).loss_P.mean()
    assert float(loss) == pytest.approx(0.6931472, abs=1e-6)

    changed = trainable(load(name), changed=True)
    gain_NK = gains(changed, PROMPTS[0], latents, scoring, reference="base")
    reward_N, error_N = implicit_reward(gain_NK, draw_weights([gain_NK], scoring), beta=100.0)
    assert reward_N.abs().min() > 0 and len(set(reward_N.tolist())) == 3 and (error_N > 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_predicts_nearly_the_same_and_its_adapter_learns_in_float32(load, name):
    exact, reduced = load(name), load(name, precision="bfloat16")
    assert {p.dtype for p in reduced.denoiser.parameters()} == {torch.bfloat16}
    batch = batch_of_pairs(exact)
    # Numbers that bfloat16 has: a transformer rounds what it is told of noise and guidance.
    batch.timesteps_2P = torch.tensor([125, 250, 500] * 2).to(batch.timesteps_2P.dtype)
    batch.conditioning_2P = exact.at_guidance(batch.conditioning_2P, 4.0)
    predictions, gradients = [], []
    for backbone in (exact, reduced):
        policy = trainable(backbone, changed=False)
        predictions.append(predicted(backbone, batch))
        predictions[-1].square().mean().backward()
        parameters = policy.parameters().values()
        assert {one.dtype for one in parameters} == {torch.float32}
        gradients.append(torch.cat([one.grad.flatten() for one in parameters]))
    expected, found = predictions
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


# The loop and what comes out of it

ANNOTATOR = """
import json, sys
for line in sys.stdin:
    pair = json.loads(line)
    print(json.dumps({"pair": pair["pair"], "label": "left"}), flush=True)
"""
SETTINGS = LoopSettings(
    prompts_per_round=2,
    num_candidates=2,
    candidates_per_pair=2,
    min_human_pairs=2,
    monitor_prompts=1,
    lora=Lora(rank=2),
    optimisation=Optimisation(steps=2, batch_pairs=2, learning_rate=5e-2, warmup_steps=0),
    scoring=Scoring(draws=2),
    sampling=Sampling(steps=2, size=SIZE),
    # Open: what is tested is that the rounds are gone through.
    monitoring=Monitoring(
        per_prompt=2,
        preview_prompts=1,
        min_judge_accuracy=0,
        min_diversity_ratio=0,
        max_saturation_ratio=1e9,
    ),
)


@pytest.fixture(scope="session")
def looped(folder_of, tmp_path_factory) -> Callable[[str], Path]:
    """The loop's folder of a family, two self-annotated rounds."""
    done = {}

    def loop(name: str) -> Path:
        if name not in done:
            root = tmp_path_factory.mktemp(f"loop-{name}")
            (root / "annotator.py").write_text(ANNOTATOR)
            (root / "settings.json").write_text(SETTINGS.model_dump_json())
            (root / "prompts.txt").write_text(
                "\n".join(f"a {size} fox {n}" for n in range(6) for size in "ab")
            )
            command = [
                *("loop", "--model", folder_of(name), "--prompts", root / "prompts.txt"),
                *("--annotator", f"{sys.executable} {root / 'annotator.py'}", "--out", root / "out"),
                *("--settings", root / "settings.json", "--seed-pairs", 3, "--rounds", 2),
            ]
            result = sail(*command)
            assert result.exit_code == 0, result.stderr
            done[name] = root / "out"
        return done[name]

    return loop


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loop_goes_through_two_rounds(looped, name):
    result = json.loads((looped(name) / "result.json").read_text())
    assert [(done["round"], done["accepted"]) for done in result["rounds"]] == [
        (0, True),
        (1, True),
        (2, True),
    ]
    assert len({done["sha256"] for done in result["rounds"]}) == 3
    assert [done["self_pairs"] for done in result["rounds"]] == [0, 2, 2]
    for run in sorted((looped(name) / "runs").glob("*-train")):
        first, second = RunFolder(run).metrics()
        # Every round starts at its reference, and moves. At this rate errors are near 25, and beta makes
        # 2e-3 of their last bit.
        assert first["loss"] == pytest.approx(0.6931472, abs=5e-3) and first["grad_norm"] > 0
        assert abs(second["margin"]) > 1e-6


def last_adapter(loop: Path) -> tuple[str, Path]:
    last = json.loads((loop / "result.json").read_text())["rounds"][-1]
    return last["sha256"], Path(last["adapter"])


@pytest.mark.parametrize("name", FAMILIES)
def test_training_moves_the_adapter_of_every_target(looped, load, name):
    policy = Policy(load(name))
    policy.load("policy", last_adapter(looped(name))[1])
    up = {name: tensor for name, tensor in policy.weights().items() if "lora_B" in name}
    still = [name for name, tensor in up.items() if not tensor.any()]
    # What the text asks in the last block of SD3 goes nowhere: that block gives out the image alone.
    assert still == (["transformer_blocks.1.attn.add_q_proj.lora_B.weight"] if name == "sd3" else [])
    suffixes = {target for target in policy.backbone.lora_targets for key in up if f".{target}." in key}
    assert suffixes == set(policy.backbone.lora_targets)


def test_a_lora_is_as_strong_as_its_file_says_layer_by_layer(load, tmp_path):
    policy = trainable(load("flux"), changed=True)
    policy.save(tmp_path)
    whole = load_file(tmp_path / ADAPTER_FILE)
    modules = {name.rpartition(".lora_")[0] for name in whole}
    file = tmp_path / "half" / ADAPTER_FILE
    file.parent.mkdir()
    save_file({**whole, **{f"{module}.alpha": torch.tensor(1.0) for module in modules}}, file)
    halved = Policy(load("flux"))
    halved.load("policy", file.parent)
    found, expected = halved.weights(), policy.weights()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor / 2 if ".lora_B." in name else tensor), name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lora_that_would_be_drawn_in_part_is_refused(load, tmp_path, name):
    backbone = load(name)
    trainable(backbone, changed=True).save(tmp_path)
    whole = load_file(tmp_path / ADAPTER_FILE)
    more, less = dict(whole), dict(whole)
    more["text_encoder.layers.0.q_proj.lora_A.weight"] = torch.ones(2, 4)
    more["text_encoder.layers.0.q_proj.lora_B.weight"] = torch.ones(4, 2)
    del less[next(key for key in whole if ".lora_B." in key)]
    for tensors, sentence in ((more, "text_encoder.* would be left out"), (less, "it is no whole LoRA")):
        save_file(tensors, tmp_path / ADAPTER_FILE)
        with pytest.raises(ValueError, match=sentence):
            Policy(load(name)).load("policy", tmp_path)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_lora_draws_in_the_familys_pipeline_what_it_draws_here(
    looped, load, folder_of, tmp_path, name
):
    sha256, adapter = last_adapter(looped(name))
    request = ExportRequest(model=ModelRef(source=str(folder_of(name))), adapter=sha256, merged=True)
    run = RunFolder.create(tmp_path / "export", request, adapters={sha256: adapter})
    execute(run)
    out = run.path / "export"
    policy = Policy(load(name))
    noise = noise_of(policy.backbone)
    base = drawn_by_us(policy, noise, guidance=4.0)
    policy.load("policy", adapter)
    aligned = drawn_by_us(policy, noise, guidance=4.0)
    scale = float(base.std())
    assert (aligned - base).abs().max() > 0.01 * scale

    with_lora = pipeline_of(folder_of(name))
    with_lora.load_lora_weights(out / "lora", weight_name=ADAPTER_FILE)
    merged = pipeline_of(out / "merged")
    for pipeline in (with_lora, merged):
        assert torch.allclose(drawn_by_pipeline(pipeline, noise, guidance=4.0), aligned, atol=1e-3 * scale)
    assert "DiffusionPipeline.from_pretrained" in (out / "README.md").read_text()
    assert not [*out.rglob("*.bin")]


def updates_of(denoiser: torch.nn.Module) -> dict[str, Tensor]:
    """What the adapter that is loaded adds to each weight."""
    layers = {name: module for name, module in denoiser.named_modules() if isinstance(module, BaseTunerLayer)}
    return {name: layer.get_delta_weight(layer.active_adapters[0]) for name, layer in layers.items()}


def exported(folder: Path, model: ModelRef, adapter: Path, **asked) -> Path:
    sha256 = sha256_file(adapter / ADAPTER_FILE)
    request = ExportRequest(model=model, adapter=sha256, **asked)
    run = RunFolder.create(folder, request, adapters={sha256: adapter})
    execute(run)
    return run.path / "export"


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_lora_does_the_same_to_who_knows_its_alpha_and_who_does_not(
    load, folder_of, tmp_path, name
):
    policy = trainable(load(name), changed=True, alpha=8)
    policy.save(tmp_path / "adapter")
    out = exported(tmp_path / "run", ModelRef(source=str(folder_of(name))), tmp_path / "adapter")
    (tmp_path / "untold").mkdir()
    save_file(load_file(out / "lora" / ADAPTER_FILE), tmp_path / "untold" / ADAPTER_FILE)
    expected = updates_of(policy.backbone.denoiser)
    for lora in (out / "lora", tmp_path / "untold"):
        pipeline = pipeline_of(folder_of(name))
        pipeline.load_lora_weights(lora)
        found = updates_of(getattr(pipeline, policy.backbone.part))
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], expected[name], rtol=1e-5) for name in expected)


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_comfyui_finds_every_module_of_an_exported_unets_lora_and_does_the_same_with_it(
    load, folder_of, root, tmp_path, name
):
    targets = LoopSettings.for_model(ModelRef(source=str(root / "data/starter"))).lora.targets
    assert {"conv1", "time_emb_proj"} < set(targets)
    policy = trainable(load(name), changed=True, alpha=8, targets=targets)
    policy.save(tmp_path / "adapter")
    out = exported(tmp_path / "run", ModelRef(source=str(folder_of(name))), tmp_path / "adapter")
    pipeline = pipeline_of(folder_of(name))
    # ComfyUI's rule: it makes a name of each of its weights, and looks for what is added to it.
    weights = pipeline.unet.state_dict().items()
    named = {
        f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}": (key.removesuffix(".weight"), weight)
        for key, weight in weights
        if key.endswith(".weight")
    }
    lora = load_file(out / FOR_TOOLS)
    modules = {key.partition(".")[0] for key in lora}
    assert len(lora) == 3 * len(modules) and modules <= named.keys()
    pipeline.load_lora_weights(out / "lora")
    updates = updates_of(pipeline.unet)
    assert updates.keys() == {named[module][0] for module in modules}
    for module in modules:
        name, weight = named[module]
        down, up = lora[f"{module}.lora_down.weight"], lora[f"{module}.lora_up.weight"]
        update = lora[f"{module}.alpha"] / len(down) * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        assert torch.allclose(update, updates[name], atol=1e-5)
    assert convert_state_dict_to_kohya(load_file(out / "lora" / ADAPTER_FILE)).keys() == lora.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_card_says_which_file_is_for_which_tool(load, folder_of, tmp_path, name):
    policy = trainable(load(name), changed=False)
    policy.save(tmp_path / "adapter")
    out = exported(tmp_path / "run", ModelRef(source=str(folder_of(name))), tmp_path / "adapter")
    card = (out / "README.md").read_text()
    ((tools, file),) = re.findall(r"^\| (.*ComfyUI.*) \| `(.*)`, into", card, re.MULTILINE)
    is_unet = policy.backbone.part == "unet"
    assert (out / file).is_file() and file == (FOR_TOOLS if is_unet else f"lora/{ADAPTER_FILE}")
    assert ("AUTOMATIC1111" in tools) == (out / FOR_TOOLS).exists() == is_unet
    # Of SDXL's modules kohya's own tools know Stability's names.
    assert ("kohya" in tools) == (name == "stable_diffusion")


@pytest.mark.parametrize(
    ("name", "solver", "own"),
    [
        ("stable_diffusion", "auto", {"algorithm_type": "sde-dpmsolver++"}),
        ("stable_diffusion", "ddim", {}),
        ("stable_diffusion", "ddpm", {}),
        ("v_prediction", "auto", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        ("zero_snr", "dpm++", {}),
        ("sd3", "auto", {"stochastic_sampling": True}),
        ("flux", "auto", {}),
        ("schnell", "auto", {}),
    ],
)
def test_the_model_cards_python_draws_what_is_drawn_here(folder_of, tmp_path, monkeypatch, name, solver, own):
    folder = shutil.copytree(folder_of(name), tmp_path / "base")
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    model = ModelRef(source=str(folder))
    policy = trainable(backbones.load(model), changed=True)
    policy.save(tmp_path / "adapter")
    sampling = QUICK.model_copy(update={"solver": solver, "guidance": 2.5})
    out = exported(tmp_path / "run", model, tmp_path / "adapter", sampling=sampling)
    noise = noise_of(policy.backbone, 1)

    def noises() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(1)]

    conditioning = policy.backbone.encode_prompts(["a red fox"])
    drawn = denoise(policy, noise, conditioning, noises(), sampling)
    ours = policy.backbone.decode(drawn)[0].float()

    (python,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    given = {"latents": noise, "generator": noises()}
    if model.pipeline == "FluxPipeline":
        given["latents"] = FluxPipeline._pack_latents(noise, *noise.shape)
    for stands, instead in (("path/to/base", str(folder)), ('"what to draw"', '"a red fox", **given')):
        assert python.count(stands) == 1
        python = python.replace(stands, instead)
    monkeypatch.chdir(out)
    exec(python, {"given": given})
    theirs = torch.from_numpy(np.array(Image.open("image.png"))).float()
    assert (ours - theirs).abs().max() <= 1 and ours.std() > 5


def test_the_model_card_is_one_of_the_hubs_and_says_how_large_its_images_are():
    hub = ModelRef(source="owner/base", revision="0123abc")
    asked = ExportRequest(model=hub, adapter="0" * 64, sampling=Sampling(steps=9, size=(768, 512)))
    card = model_card(asked, is_unet=True)
    front = card.split("---\n")[1].splitlines()
    assert front[:3] == ["library_name: diffusers", "pipeline_tag: text-to-image", "base_model: owner/base"]
    assert "num_inference_steps=9, guidance_scale=5.0, height=768, width=512)" in card
    local = asked.model_copy(update={"model": ModelRef(source="/nowhere/base"), "sampling": Sampling()})
    card = model_card(local, is_unet=True)
    assert "base_model" not in card and "height" not in card


def test_the_families_that_the_app_knows_without_loading_them_are_those_that_can_be_loaded():
    assert tuple(backbones.FAMILIES) == tuple(model_ref.FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_merged_pipeline_has_all_that_the_lora_adds_whatever_it_was_trained_in(
    load, folder_of, tmp_path, name
):
    policy = trainable(load(name), changed=True, alpha=8)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter *= 0.02
    policy.save(tmp_path / "adapter")
    updates, part = updates_of(policy.backbone.denoiser), policy.backbone.part
    model = ModelRef(source=str(folder_of(name)), precision="bfloat16")
    out = exported(tmp_path / "run", model, tmp_path / "adapter", merged=True)
    base, merged = (
        getattr(pipeline_of(folder), part).state_dict() for folder in (folder_of(name), out / "merged")
    )
    for key, weight in base.items():
        update = updates.get(key.removesuffix(".weight"), torch.zeros(()))
        assert merged[key].dtype == torch.float32
        assert torch.allclose(merged[key] - weight, update, atol=1e-7), key
    assert "in float32" in (out / "README.md").read_text()


def test_an_exported_lora_whose_alpha_is_its_rank_is_the_same_file(load, folder_of, tmp_path):
    sha256 = trainable(load("sdxl"), changed=True).save(tmp_path / "adapter")
    out = exported(tmp_path / "run", ModelRef(source=str(folder_of("sdxl"))), tmp_path / "adapter")
    assert sha256_file(out / "lora" / ADAPTER_FILE) == sha256


def test_a_lora_of_another_family_is_refused(looped, load):
    with pytest.raises(ValueError, match="no LoRA of a unet for StableDiffusionXLPipeline"):
        Policy(load("sdxl")).load("policy", last_adapter(looped("sd3"))[1])


# The page about families


def test_the_page_on_families_names_all_of_them_and_every_file(root):
    page = (root / "docs/backbones.md").read_text(encoding="utf-8")
    files = {file.name for file in (root / "sail/backbones").glob("*.py")}
    assert set(re.findall(r"\b[\w]+\.py\b", page)) == files | {
        "model_ref.py",
        "tiny_families.py",
        "test_backbones.py",
    }
    assert set(re.findall(r"`(\w+Pipeline)`", page)) == set(backbones.FAMILIES)
    for block in re.findall(r"`(\{.*\})`", page):
        LoopSettings().changed(json.loads(block))
