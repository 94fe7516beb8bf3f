"""Text encoder and UNet, trained together from random weights. Knows latents and captions, no image.

Velocity prediction with zero terminal SNR: at the last timestep the network sees pure noise and must say
the image, so plain dark and light backgrounds can be drawn. B batch, C H W latent.
"""

from __future__ import annotations

import json
import logging
import math
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .checkpoints import Checkpoint, running_average, without_prefix
from .codec import CHANNELS, PATCH, all_latents
from .scenes import SCENE_PX, load_scenes
from .words import CLASSES, caption, captions

log = logging.getLogger(__name__)

TOKENS, WIDTH = 16, 128
BATCH = 16
WARMUP_STEPS = 300
SAVE_EVERY_S = 240
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULE)


def tokenizer(work: Path) -> CLIPTokenizer:
    """Byte-pair tokenizer of CLIP's kind, trained on the captions; cached in `work`/tokenizer."""
    folder = work / "tokenizer"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        vocabulary, merges = _trained_vocabulary()
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            (Path(scratch) / "vocab.json").write_text(json.dumps(vocabulary))
            (Path(scratch) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
            CLIPTokenizer(
                str(Path(scratch) / "vocab.json"),
                str(Path(scratch) / "merges.txt"),
                pad_token="<|endoftext|>",
                model_max_length=TOKENS,
            ).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _trained_vocabulary() -> tuple[dict[str, int], list[str]]:
    words = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    words.post_processor = processors.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    words.train_from_iterator((text for _, text in captions()), trainer)
    learned = json.loads(words.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in learned["merges"]]
    return learned["vocab"], merges


def random_caption(attributes_4: np.ndarray, rng: random.Random) -> str:
    """Style, background and size are each named half of the time; one caption in ten is empty."""
    if rng.random() < 0.1:
        return ""
    subject, *others = (names[number] for names, number in zip(CLASSES.values(), attributes_4, strict=True))
    style, background, size = (name if rng.random() < 0.5 else "" for name in others)
    return caption(subject, style=style, background=background, size=size)


def pretrain_text_encoder(network: Denoiser, work: Path, *, steps: int = 260, batch: int = 128) -> None:
    """Teach the text encoder to tell captions apart, in half a minute.

    After the caption's end every token must say all four attributes, or that one is not named: random
    embeddings hardly differ between subjects.
    """
    tokens, words = tokenizer(work), list(captions())
    ids = tokens([text for _, text in words], padding="max_length", return_tensors="pt").input_ids
    # The last class of each attribute stands for "not named".
    counts = torch.tensor([len(names) + 1 for names in CLASSES.values()])
    classes = torch.tensor([numbers for numbers, _ in words]) % counts
    heads = nn.ModuleList(nn.Linear(WIDTH, len(names) + 1) for names in CLASSES.values())
    optimiser = torch.optim.AdamW([*network.text_encoder.parameters(), *heads.parameters()], lr=1e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 30) * (1 - step / steps)
        chosen = torch.randint(len(ids), (batch,), generator=torch.Generator().manual_seed(step))
        past_end = ids[chosen] == tokens.eos_token_id
        seen = network.text_encoder(ids[chosen])[0][past_end]
        wanted = classes[chosen].repeat_interleave(past_end.sum(1), dim=0)
        loss = sum(nn.functional.cross_entropy(head(seen), wanted[:, k]) for k, head in enumerate(heads))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


class Denoiser(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, vocabulary: int, end: int, start: int) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=TOKENS,
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=SCENE_PX // PATCH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=(32, 96, 160),
            layers_per_block=1,
            norm_num_groups=16,
            # In this class the number of heads a level, in spite of its name: heads of 32.
            attention_head_dim=(1, 3, 5),
            cross_attention_dim=WIDTH,
            # The caption also joins the time embedding, which reaches every block: with cross attention alone
            # the subject was not heard after 70,000 images.
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )


def new_denoiser(work: Path) -> Denoiser:
    tokens = tokenizer(work)
    torch.manual_seed(0)
    return Denoiser(len(tokens), tokens.eos_token_id, tokens.bos_token_id)


def train_denoiser(
    work: Path,
    released: Path,
    *,
    images: int,
    peak_rate: float = 5e-4,
    last_rate: float = 2e-5,
    memory: float = 0.999,
) -> None:
    """Train on `images` latents in all, from the last checkpoint on; with more images than before, further.

    Without a checkpoint it goes on from the released weights, if there are any, with a fresh optimiser.
    """
    network = new_denoiser(work)
    # A third more images a second on a CPU; rounding products to bfloat16 is far below the gradient's noise.
    network.unet.to(memory_format=torch.channels_last)
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    first = load_released(network, released)
    if not first and not (work / "denoiser.pt").exists():
        pretrain_text_encoder(network, work)
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    averaged = running_average(network, memory=memory)
    checkpoint = Checkpoint(work / "denoiser.pt", network=network, optimiser=optimiser, averaged=averaged)
    resumed = checkpoint.load()
    # A fresh optimiser knows no scale of the gradients yet: its rate rises over the first steps.
    cold, first = (0, resumed) if resumed else (first, first)
    latents, attributes = all_latents(work), load_scenes(work).attributes_S4
    tokens, schedule = tokenizer(work), scheduler()
    steps, losses = images // BATCH, []
    saved = began = time.monotonic()
    for step in range(first, steps):
        clean, noise, timesteps, ids = batch_of(step, latents, attributes, tokens)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        warm = min(1, (step - cold + 1) / WARMUP_STEPS)
        optimiser.param_groups[0]["lr"] = warm * (last_rate + (peak_rate - last_rate) * cosine)
        noisy = schedule.add_noise(clean, noise, timesteps).to(memory_format=torch.channels_last)
        prediction = network.unet(noisy, timesteps, network.text_encoder(ids)[0]).sample
        loss = (prediction - schedule.get_velocity(clean, noise, timesteps)).pow(2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(network)
        losses.append(loss.item())
        if (step + 1) % 200 == 0:
            speed = BATCH * (step + 1 - first) / (time.monotonic() - began)
            mean = sum(losses[-200:]) / len(losses[-200:])
            log.info("denoiser step %d of %d, loss %.4f, %.1f images/s", step + 1, steps, mean, speed)
        if time.monotonic() - saved > SAVE_EVERY_S or step + 1 == steps:
            checkpoint.save(step + 1)
            saved = time.monotonic()


def batch_of(
    step: int, latents: np.ndarray, attributes: np.ndarray, tokens: CLIPTokenizer
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, noise, timesteps and caption tokens: a function of the step, so a resume goes on alike."""
    rng, generator = random.Random(f"denoiser/{step}"), torch.Generator().manual_seed(step)
    chosen = [rng.randrange(len(latents)) for _ in range(BATCH)]
    clean = torch.from_numpy(np.stack([latents[scene] for scene in chosen])).float()
    words = [random_caption(attributes[scene], rng) for scene in chosen]
    ids = tokens(
        words, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    noise = torch.randn(clean.shape, generator=generator)
    # One timestep from each slice of the range: a quieter gradient than independent ones.
    slices = torch.randperm(BATCH, generator=generator) + torch.rand(BATCH, generator=generator)
    timesteps = (slices / BATCH * 1000).long().clamp(max=999)
    return clean, noise, timesteps, ids


def load_released(network: Denoiser, folder: Path) -> int:
    """Put the released weights into the network; return the steps behind them, 0 where there are none."""
    record = folder / "training.json"
    if not record.exists():
        return 0
    network.unet.load_state_dict(load_file(folder / "unet/diffusion_pytorch_model.safetensors"))
    network.text_encoder.load_state_dict(load_file(folder / "text_encoder/model.safetensors"))
    return int(json.loads(record.read_text())["denoiser_images"]) // BATCH


def trained_denoiser(work: Path) -> Denoiser:
    """The averaged weights of the last checkpoint."""
    network = new_denoiser(work)
    state = torch.load(work / "denoiser.pt", map_location="cpu", weights_only=True)["averaged"]
    network.load_state_dict(without_prefix(state))
    return network.eval().requires_grad_(False)
